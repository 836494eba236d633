"""Our turn at a WebUI's model: its lock, its progress bar, and the buttons that a person presses meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from lib_trainer.utils.patch import attributes

JOB_NAME = "Train LoRA"


@dataclass
class InterruptFlags:
    """What was pressed during our turn.

    The WebUI clears its own flags whenever any call of its page ends, a mere refresh of a list too: a press that was
    not looked at by then would be lost.
    """

    interrupt: bool = False
    finish: bool = False
    skip: bool = False

    def interrupted(self) -> bool:
        """Whether Interrupt was pressed; pressed once it may mean to finish the picture, pressed twice it stops."""
        from modules import shared

        return bool(self.interrupt or self.finish or shared.state.interrupted or shared.state.stopping_generation)

    def cut_short(self) -> bool:
        """Whether a picture that was drawn meanwhile may be unfinished."""
        from modules import shared

        return bool(self.interrupt or self.skip or shared.state.interrupted or shared.state.skipped)

    def noting(self, button: str, press: Callable[[], None]) -> Callable[[], None]:
        """`press`, noted here as well."""

        def noted() -> None:
            setattr(self, button, True)
            press()

        return noted


@contextmanager
def generation_lock() -> Iterator[InterruptFlags]:
    """Our turn at the model: the lock that Generate waits for, and the WebUI's own progress state."""
    from modules import shared
    from modules.call_queue import queue_lock

    state, presses = shared.state, InterruptFlags()
    with queue_lock:
        state.begin(job=JOB_NAME)
        try:
            with attributes(
                [state],
                interrupt=presses.noting("interrupt", state.interrupt),
                stop_generating=presses.noting("finish", state.stop_generating),
                skip=presses.noting("skip", state.skip),
                # A page that asks how far we are would have the VAE loaded for a preview, on a thread of its own.
                set_current_image=_no_preview,
            ):
                yield presses
        finally:
            state.end()


def show_progress(step: int, steps: int, text: str) -> None:
    """Moves the WebUI's progress bar. Also brings it back where another call has ended what it took for its own."""
    from modules import shared

    state = shared.state
    # A turn counts as one job; with the -1 that `begin` leaves, the WebUI's progress would be negative.
    state.job, state.job_count, state.job_no = JOB_NAME, 1, 0
    state.sampling_step, state.sampling_steps = step, steps
    state.textinfo = text


def _no_preview() -> None:
    """In place of a preview of the picture that is being drawn."""
