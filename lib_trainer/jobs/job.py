"""One run: drives the events of `run.run` under the host's lock, hears commands between them, keeps its record."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from lib_trainer.config.recipe import Recipe
from lib_trainer.errors import ConfigError, OutOfMemory, UserError
from lib_trainer.events import Command, Event, Sampled, Saved, StateSaved, Step, StopRequested
from lib_trainer.host.base import Host
from lib_trainer.jobs.history import SAMPLE_DIR, RunLog
from lib_trainer.jobs.status import Record, Status

# How soon a paused run hears its next command when nobody wakes it: the host's own Interrupt button.
HEAR_SECONDS = 0.25

# After these events the run takes commands.
BETWEEN_STEPS = (Step, StateSaved, Saved, Sampled)

# A host, a recipe and the folder in which the run keeps what a resume needs -> its events.
Run = Callable[[Host, Recipe, Path], Iterator[Event]]
_log = logging.getLogger(__name__)


class Job:
    """One run, its pending commands and its record. `_heard` is notified whenever one of them changes."""

    def __init__(self, host: Host, recipe: Recipe, run: Run, log: RunLog) -> None:
        self.id, self.name = log.past.id, recipe.output.output_name
        self._host, self._recipe, self._run, self._log = host, recipe, run, log
        self._heard = threading.Condition()
        self._record = Record(self.name, time.time(), self.id)
        samples = (Sampled(log.folder / SAMPLE_DIR / file, step, prompt) for step, file, prompt in log.past.samples)
        self._record.recall(log.losses(), samples, log.evaluations())
        # A resumed run has the state of its last end until here.
        self._log.write_changes(state="queued", ended=0.0)
        self._stop: StopRequested | None = None
        self._paused = False
        self._asked: list[Command] = []

    def command(self, *, paused: bool | None = None, stop: StopRequested | None = None) -> None:
        with self._heard:
            status = self._record.brief
            if not status.live:
                return
            if status.state == "queued" and stop:
                # Nothing has begun: the thread that waits for the host's lock will find nothing to do.
                self._close(state="stopped")
            elif stop and not self._stop:
                self._stop, self._paused = stop, False
                self._record.set(stopping=True)
            # A stop wins over a pause: the paused run would never hear it.
            elif paused is not None and not self._stop and status.state != "queued":
                if paused and not self._paused:
                    # A person who pauses may shut the machine down.
                    self._asked.append(Command.SAVE_STATE)
                self._paused = paused
                self._record.pause(paused)
            self._heard.notify_all()

    def ask(self, command: Command) -> None:
        with self._heard:
            # Ten clicks on Save before the next step mean one copy.
            if self._record.brief.live and not self._stop and command not in self._asked:
                self._asked.append(command)
                self._heard.notify_all()

    @property
    def version(self) -> int:
        return self._record.brief.version

    def status(self) -> Status:
        with self._heard:
            return self._record.status()

    def work(self) -> None:
        """The run from waiting for the host to its end; never raises."""
        try:
            # Waits for the WebUI's lock: a picture that is being drawn is finished first.
            self._host.run_exclusive(self._drive)
            self._end()
        except UserError as error:
            problems = error.problems if isinstance(error, ConfigError) else {}
            remedy = error.settings if isinstance(error, OutOfMemory) else {}
            self._end(state="failed", error=error.message, hint=error.hint, problems=problems, remedy=remedy)
        except Exception as error:  # noqa: BLE001 - the traceback goes to the console, one line to the page
            _log.exception("Training %s failed", self.name)
            text = f"{type(error).__name__}: {error}".strip().splitlines()[0]
            self._end(state="failed", error=text, hint="The console holds the whole traceback.")

    def _end(self, **changes: object) -> None:
        with self._heard:
            self._close(**changes)
            self._heard.notify_all()

    def _close(self, **changes: object) -> None:
        if self._record.brief.live:
            self._record.close(**changes)
            self._log.finish(self._record.brief.state, self._record.brief.error)

    def _drive(self) -> None:
        """Runs on the host's generation thread. Always closes the generator, which restores the host."""
        with self._heard:
            if not self._record.brief.live:
                return
            self._record.set(state="preparing", phase="Preparing")
        events = self._run(self._host, self._recipe, self._log.folder)
        try:
            self._follow(events)
        finally:
            # Runs the generator's `finally` blocks here, still under the host's lock.
            events.close()

    def _follow(self, events: Iterator[Event]) -> None:
        stopped, event = False, None
        while True:
            command = self._listen(event, stopped)
            try:
                if isinstance(command, StopRequested):
                    stopped = True
                    # A new exception: a raised one keeps the frames, and so the tensors, of the run alive.
                    event = events.throw(StopRequested(save=command.save))
                elif command:
                    event = events.send(command)
                else:
                    event = next(events)
            except (StopIteration, StopRequested):
                return
            self._take(event)

    def _listen(self, event: Event | None, stopped: bool) -> StopRequested | Command | None:
        """The next command, if any. Does not return while the run is paused."""
        while not stopped:
            # Read between all events: a person who presses Interrupt expects the next step to be the last.
            if self._host.interrupted():
                self._interrupt()
            with self._heard:
                if self._stop:
                    return self._stop
                if self._asked and isinstance(event, BETWEEN_STEPS):
                    return self._asked.pop(0)
                if not self._paused:
                    return None
                self._heard.wait(HEAR_SECONDS)
        return None

    def _interrupt(self) -> None:
        with self._heard:
            if not self._stop:
                self._stop, self._paused = StopRequested(save=True), False
                self._record.note("Interrupted from the WebUI: saving the adapter.")
                self._record.set(stopping=True)

    def _take(self, event: Event) -> None:
        with self._heard:
            self._log.take(event)
            self._record.take(event)
            status = self._record.brief
        done, total = (status.step, status.steps) if status.state == "training" else (status.done, status.total)
        # Outside the lock, so that no watcher waits for the WebUI.
        self._host.show_progress(done, total, status.phase)
