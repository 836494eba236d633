"""Holding a WebUI's generation lock: its queue, its progress bar, and the buttons that a person presses meanwhile."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from lib_trainer.host.webui.waiting_tasks import cancel_waiting
from lib_trainer.utils.patch import attributes

_log = logging.getLogger(__name__)
JOB_NAME = "Train LoRA"


@dataclass
class InterruptFlags:
    """The buttons that were pressed while we hold the lock.

    The WebUI clears its own flags whenever any call of its page ends, even the refresh of a list; a press that was
    not read by then would be lost.
    """

    interrupt: bool = False
    finish: bool = False
    skip: bool = False

    def interrupted(self) -> bool:
        """Whether Interrupt was pressed. By an option of the WebUI the first press only finishes the picture."""
        from modules import shared

        return bool(self.interrupt or self.finish or shared.state.interrupted or shared.state.stopping_generation)

    def cut_short(self) -> bool:
        """Whether a picture that was drawn meanwhile may be unfinished."""
        from modules import shared

        return bool(self.interrupt or self.skip or shared.state.interrupted or shared.state.skipped)

    def forget(self) -> None:
        """What was pressed has been heeded: it meant a picture that is cancelled now."""
        from modules import shared

        self.interrupt = self.finish = self.skip = False
        state = shared.state
        state.interrupted = state.stopping_generation = state.skipped = False

    def recording(self, button: str, press: Callable[[], None]) -> Callable[[], None]:
        """`press`, which also sets the flag of this name; a picture that waits is cancelled first, and alone."""

        def recorded() -> None:
            if button != "skip" and cancel_waiting():
                _log.info("A waiting picture is cancelled; Interrupt once more ends what Train LoRA does.")
                return
            setattr(self, button, True)
            press()

        return recorded


@contextmanager
def generation_lock() -> Iterator[InterruptFlags]:
    """Holds the lock that Generate waits for, with the WebUI's own progress state."""
    from modules import shared
    from modules.call_queue import queue_lock

    state, flags = shared.state, InterruptFlags()
    with queue_lock:
        state.begin(job=JOB_NAME)
        try:
            with attributes(
                [state],
                interrupt=flags.recording("interrupt", state.interrupt),
                stop_generating=flags.recording("finish", state.stop_generating),
                skip=flags.recording("skip", state.skip),
                # A page that asks for progress makes the WebUI decode a preview, which loads the VAE on another thread.
                set_current_image=_no_preview,
            ):
                yield flags
        finally:
            state.end()


def show_progress(step: int, steps: int, text: str) -> None:
    """Moves the WebUI's progress bar, and restores it where another call has taken it over."""
    from modules import shared

    state = shared.state
    # `begin` leaves job_count at -1, with which the WebUI computes a negative progress; we are one job.
    state.job, state.job_count, state.job_no = JOB_NAME, 1, 0
    state.sampling_step, state.sampling_steps = step, steps
    state.textinfo = text


def _no_preview() -> None:
    """Replaces the WebUI's preview of the current picture."""
