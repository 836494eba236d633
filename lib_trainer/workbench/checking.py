"""The checks of an open folder, in a thread of their own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from lib_trainer.config.recipe import DatasetConfig
from lib_trainer.dataset.checks.check_folder import check_folder
from lib_trainer.dataset.scan import Scan
from lib_trainer.events import Progress
from lib_trainer.utils.background import start_background


class Checking:
    """Findings as they come. `read` gives the small copies of pictures, `numbers` their places in the page's list."""

    def __init__(
        self, scan: Scan, config: DatasetConfig, kind: str, read: Callable[[Path], Image.Image],
        numbers: Mapping[Path, int],
    ) -> None:  # fmt: skip
        self._events = check_folder(scan, config, kind, read)
        self._numbers, self._total = numbers, len(scan.samples)
        self._found: list[dict[str, Any]] = []
        self._done, self._ended, self._stopped = 0, False, False
        self._phase = "checking"
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = start_background(self._run, self.stop, "check pictures")

    def stop(self) -> None:
        """Ends after the picture under way."""
        self._stopped = True

    def wait(self) -> None:
        if self._thread:
            self._thread.join()

    def describe(self) -> dict[str, Any]:
        """`done` of `total` pictures are through the `phase`; `findings` so far; whether it has `ended`.

        The phases are `checking`, in which each picture is measured, and `comparing`.
        """
        return {
            "phase": self._phase, "done": self._done, "total": self._total, "ended": self._ended,
            "findings": list(self._found),
        }  # fmt: skip

    def _run(self) -> None:
        try:
            for event in self._events:
                if isinstance(event, Progress):
                    self._phase, self._done, self._total = event.phase, event.done, event.total
                else:
                    numbers = [self._numbers[path] for path in event.pictures]
                    found = {"kind": event.kind, "severity": event.severity, "sentence": event.sentence}
                    self._found.append({**found, "pictures": numbers})
                if self._stopped:
                    self._events.close()
        except Exception:
            # A thread's error would go nowhere; the page still has what was found.
            logging.getLogger(__name__).exception("The checks of a folder ended early.")
        self._ended = True
