"""Captions by a machine for an open folder: in a thread, with progress, a stop, and one step back."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from lib_trainer.captioning.captioner import Captioned, Captioner, CaptionPlan, caption_pictures
from lib_trainer.errors import UserError
from lib_trainer.utils.background import start_background

T = TypeVar("T")


@dataclass
class AutoState:
    """How far it is. `message` is the sentence with which it ended, "" while it runs."""

    running: bool = False
    done: int = 0
    total: int = 0
    written: int = 0
    message: str = ""


class AutoCaptions:
    """One captioning at a time in one folder.

    Args:
        run_exclusive: calls a function where the captioner may work: `Host.run_exclusive`.
    """

    def __init__(self, run_exclusive: Callable[[Callable[[], T]], T]) -> None:
        self._run_exclusive = run_exclusive
        self.state = AutoState()
        self._thread: threading.Thread | None = None
        self._stopped = False

    def start(
        self, images: list[Path], endings: tuple[str, ...], captioner: Captioner, plan: CaptionPlan,
        done: Callable[[list[Captioned]], None],
    ) -> None:  # fmt: skip
        """Begins; `done` is called with all that was captioned at the end. Raises UserError while one is under way."""
        if self.state.running:
            raise UserError("Captions are being made already.", "Stop that first.")
        self.state, self._stopped = AutoState(running=True, total=len(images)), False
        # The model is loaned picture by picture, so that somebody's Generate waits for one of them at most.
        events = caption_pictures(images, endings, captioner, plan, self._run_exclusive)

        def work() -> None:
            made: list[Captioned] = []
            message = ""
            try:
                for item in events:
                    made.append(item)
                    self.state.done, self.state.written = item.done, self.state.written + bool(item.text)
                    if self._stopped:
                        break
            except UserError as error:
                message = str(error)
            except Exception as error:
                # A thread's error would go nowhere: the page gets a line, the console all of it.
                logging.getLogger(__name__).exception("Captioning ended early.")
                message = f"Captioning failed: {error}"
            events.close()
            done([item for item in made if item.text])
            self.state.message = message or f"{self.state.written} captioned by {captioner.label}."
            self.state.running = False

        self._thread = start_background(work, self.stop, "caption pictures")

    def stop(self) -> None:
        """Ends after the picture under way."""
        self._stopped = True

    def wait(self) -> None:
        if self._thread:
            self._thread.join()
