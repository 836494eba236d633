"""One run at a time: drives the events of `run.run`, hears pause and stop between them, and says how it stands.

A run lives on a worker thread that hands `drive` to the host's generation thread. Everybody else, the tab and
the routes, only reads immutable `Status` snapshots and leaves wishes; nothing here calls back.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator

from lib_trainer.config import Recipe
from lib_trainer.errors import ConfigError, UserError
from lib_trainer.events import Event, StopRequested
from lib_trainer.host.base import Host
from lib_trainer.status import Record, Status

# How soon a paused run hears its next command when nobody wakes it: the host's own Interrupt button.
HEAR_SECONDS = 0.25

Run = Callable[[Host, Recipe], Iterator[Event]]
_log = logging.getLogger(__name__)


def default_run(host: Host, recipe: Recipe) -> Iterator[Event]:
    """`run.run`, imported when the first run starts: it pulls in torch and LyCORIS."""
    from lib_trainer.run import run

    return run(host, recipe)


class Jobs:
    """At most one run on this host. Every method may be called from any thread."""

    def __init__(self, host: Host, run: Run = default_run) -> None:
        self._host = host
        self._run = run
        self._lock = threading.Lock()
        self._job: _Job | None = None

    def start(self, recipe: Recipe) -> None:
        """Starts a run and returns at once.

        Raises:
            ConfigError: with every problem of the recipe.
            UserError: while another run is under way.
        """
        recipe.check()
        with self._lock:
            if self._job and self._job.status().live:
                name = self._job.status().name
                raise UserError(f"{name} is still being trained.", "Wait for it, or stop it, before the next one.")
            self._job = _Job(self._host, recipe, self._run)
            self._job.start()

    def pause(self) -> None:
        """Holds the run after the step under way. The host stays busy: its model is still ours."""
        if self._job:
            self._job.wish(paused=True)

    def resume(self) -> None:
        if self._job:
            self._job.wish(paused=False)

    def stop(self, save: bool) -> None:
        """Ends the run after the step under way, paused or not; with `save`, what was learned is written first."""
        if self._job:
            self._job.wish(stop=StopRequested(save=save))

    def status(self) -> Status:
        """How the run stands, or how the last one ended."""
        job = self._job
        return job.status() if job else Status()

    def wait(self, timeout: float | None = None) -> Status:
        """Waits until no run is under way, or for `timeout` seconds."""
        if self._job:
            self._job.wait(timeout)
        return self.status()


class _Job:
    """One run, its wishes and its record. `_heard` is notified whenever one of them changes."""

    def __init__(self, host: Host, recipe: Recipe, run: Run) -> None:
        self._host, self._recipe, self._run = host, recipe, run
        self._heard = threading.Condition()
        self._record = Record(recipe.output.output_name, time.time())
        self._stop: StopRequested | None = None
        self._paused = False

    def start(self) -> None:
        # A daemon: closing the WebUI must not wait for a training run.
        threading.Thread(target=self._work, name="train-lora", daemon=True).start()

    def wish(self, *, paused: bool | None = None, stop: StopRequested | None = None) -> None:
        with self._heard:
            status = self._record.brief
            if not status.live:
                return
            if status.state == "queued" and stop:
                # Nothing has begun; the turn that is still waited for will find nothing to do.
                self._record.close(state="stopped")
            elif stop and not self._stop:
                self._stop, self._paused = stop, False
                self._record.set(stopping=True)
            elif paused is not None and not self._stop and status.state != "queued":
                self._paused = paused
                self._record.pause(paused)
            self._heard.notify_all()

    def status(self) -> Status:
        with self._heard:
            return self._record.status()

    def wait(self, timeout: float | None) -> None:
        with self._heard:
            self._heard.wait_for(lambda: not self._record.brief.live, timeout)

    def _work(self) -> None:
        try:
            self._host.run_exclusive(self._drive)
            self._end()
        except UserError as error:
            problems = error.problems if isinstance(error, ConfigError) else {}
            self._end(state="failed", error=error.message, hint=error.hint, problems=problems)
        except Exception as error:  # noqa: BLE001 - whatever it was, its traceback is kept and the person is told
            _log.exception("Training %s failed", self._recipe.output.output_name)
            text = f"{type(error).__name__}: {error}".strip().splitlines()[0]
            self._end(state="failed", error=text, hint="The console holds the whole traceback.")

    def _end(self, **changes: object) -> None:
        with self._heard:
            self._record.close(**changes)
            self._heard.notify_all()

    def _drive(self) -> None:
        """The turn on the host's generation thread. Leaves with the run's generator closed, whatever happened."""
        with self._heard:
            if not self._record.brief.live:
                return
            self._record.set(state="preparing", phase="Preparing")
        events = self._run(self._host, self._recipe)
        try:
            stopped = False
            while True:
                stop = None if stopped else self._listen()
                stopped = stopped or stop is not None
                try:
                    event = next(events) if stop is None else events.throw(stop)
                except (StopIteration, StopRequested):
                    return
                self._take(event)
        finally:
            events.close()

    def _listen(self) -> StopRequested | None:
        """The stop that is wished for, if any. Does not return while the run is paused."""
        while True:
            if self._host.interrupted():
                self._interrupt()
            with self._heard:
                if self._stop or not self._paused:
                    return self._stop
                self._heard.wait(HEAR_SECONDS)

    def _interrupt(self) -> None:
        with self._heard:
            if not self._stop:
                self._stop, self._paused = StopRequested(save=True), False
                self._record.note("Interrupted from the WebUI: what was learned is being saved.")
                self._record.set(stopping=True)

    def _take(self, event: Event) -> None:
        with self._heard:
            self._record.take(event)
            status = self._record.brief
        done, total = (status.step, status.steps) if status.state == "training" else (status.done, status.total)
        self._host.show_progress(done, total, status.phase)

