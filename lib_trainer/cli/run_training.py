"""Follows a run: progress bars on stderr, and Ctrl-C between two steps."""

from __future__ import annotations

import signal
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, suppress
from types import FrameType

from tqdm import tqdm

from lib_trainer.cli.host import open_host
from lib_trainer.cli.output import Answer, printable, say
from lib_trainer.config.recipe import Recipe
from lib_trainer.errors import UserError
from lib_trainer.events import Event, Finished, Notice, Progress, Step, StopRequested
from lib_trainer.host.base import Host
from lib_trainer.jobs.history import RUNS_DIR, History, RunLog
from lib_trainer.run import run
from lib_trainer.training.optimizer_step import Diverged
from lib_trainer.training.processes import ALONE, Dismissed, Processes, joined

# The terminal tells every process of a Ctrl-C, and some releases of torchrun tell them again.
_ECHO_SECONDS = 2.0


def shared(command: Callable[[Namespace, Processes], Answer], options: Namespace) -> Answer | None:
    """The command, in the first of the processes that torchrun has started; the others assist, and have no answer."""
    with joined() as processes:
        if not processes.rank:
            return command(options, processes)
        # The first process hears Ctrl-C for all.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with suppress(Dismissed):
            _assist(open_host(options.out, options.checkpoint, processes), processes)
        return None


def _assist(host: Host, processes: Processes) -> None:
    """Takes part in the run of the first process. Raises Dismissed when that is over."""
    recipe, folder = processes.of_first(None)
    if not folder.is_dir():
        raise UserError(f"{folder} does not exist on this machine.", "Name an --out that all machines share.")
    # The first process tells of it, and saves what is learned.
    with suppress(Diverged), closing(run(host, recipe, folder, processes)) as events:
        for _ in events:
            pass
    processes.of_first(None)


def train(
    host: Host, recipe: Recipe, log: RunLog | None = None, processes: Processes = ALONE
) -> tuple[Finished, tuple[str, ...]]:
    """One run to its end -> how it ended, and what should be known of it.

    Ctrl-C saves what is learned; a second one aborts. `resume` can continue either way.

    Args:
        log: of a run that is resumed; a new run gets its own.
        processes: that share out the run; this is the first.

    Raises:
        StopRequested: when it was stopped before anything was learned.
        UserError: whatever a person can mend.
    """
    # Also without a page every run is recorded, so that `resume` finds it.
    log = log or History(host.cache_dir / RUNS_DIR).begin(recipe)
    echo_seconds = 0.0
    if processes.count > 1:
        say(f"{processes.count} processes share this run.")
        echo_seconds = _ECHO_SECONDS
    try:
        processes.of_first((recipe, log.folder.absolute()))
        events = run(host, recipe, log.folder, processes)
        finished, notices = host.run_exclusive(lambda: follow(events, log, echo_seconds))
    # Recorded and raised: the exit code still says what happened.
    except (KeyboardInterrupt, StopRequested):
        log.finish("stopped")
        raise
    except Exception as error:
        log.finish("failed", str(error))
        raise
    log.finish("stopped" if finished.stopped_early else "done")
    return finished, notices


def follow(
    events: Generator[Event, None, None], log: RunLog | None = None, echo_seconds: float = 0.0
) -> tuple[Finished, tuple[str, ...]]:
    """Drives the events of a run to the last one. Raises StopRequested when nothing was learned yet.

    Args:
        echo_seconds: after a Ctrl-C in which another is the same one.
    """
    notices: list[str] = []
    event: Event | None = None
    with closing(events), interruptible(echo_seconds) as command, _Bar() as bar:
        may_stop = True
        while not isinstance(event, Finished):
            if command.pressed and may_stop:
                # A second request would be thrown into the code that saves.
                may_stop = False
                bar.say("Stopping: the adapter is being saved. Ctrl-C again aborts.")
                event = events.throw(StopRequested(save=True))
            else:
                event = next(events)
            if log:
                log.take(event)
            if isinstance(event, Notice):
                notices.append(event.text)
            # A run that is already being saved needs no stop: Ctrl-C would only lose the file.
            may_stop = may_stop and not (isinstance(event, Progress) and event.phase == "saving")
            bar.show(event)
    return event, tuple(notices)


class Command:
    """Whether Ctrl-C was pressed."""

    def __init__(self) -> None:
        self.pressed = False
        self.pressed_at = 0.0


@contextmanager
def interruptible(echo_seconds: float = 0.0) -> Iterator[Command]:
    """Records the first Ctrl-C, so that the step or file under way is finished; the second raises as usual."""
    command = Command()

    def record(_signal: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if command.pressed and now - command.pressed_at >= echo_seconds:
            raise KeyboardInterrupt
        command.pressed, command.pressed_at = True, now

    # Restored at the end: a caller may have a handler of its own.
    before = signal.signal(signal.SIGINT, record)
    try:
        yield command
    finally:
        signal.signal(signal.SIGINT, before)


class _Bar:
    """A progress bar that becomes another one when the phase changes."""

    def __init__(self) -> None:
        self._bar: tqdm | None = None
        self._phase = ""

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def show(self, event: Event) -> None:
        if isinstance(event, Progress):
            self._move(event.phase, event.done, event.total)
        elif isinstance(event, Step):
            self._move("training", event.number, event.total)
            self._bar.set_postfix(loss=f"{event.loss:.4f}", refresh=False)
        elif isinstance(event, Notice):
            self.say(event.text)

    def say(self, text: str) -> None:
        tqdm.write(printable(text), file=sys.stderr)

    def _move(self, phase: str, done: int, total: int) -> None:
        if self._bar is None or self._phase != phase:
            # A new bar for each phase: its rate and time left must not mix two of them.
            self.__exit__()
            self._phase = phase
            self._bar = tqdm(total=total, desc=phase, file=sys.stderr)
        self._bar.total = total
        # Events count from the start, tqdm by increments.
        self._bar.update(done - self._bar.n)
