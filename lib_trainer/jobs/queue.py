"""One run at a time, with a queue behind it.

The tab and the routes read immutable `Status` snapshots and give commands; nothing here calls them back.
`lib_trainer.jobs.job` drives a single run.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import replace

from lib_trainer.config.recipe import Recipe
from lib_trainer.errors import UserError
from lib_trainer.events import Command, StopRequested
from lib_trainer.host.base import Host
from lib_trainer.jobs.history import RUNS_DIR, History, PastRun
from lib_trainer.jobs.job import Job, Run
from lib_trainer.jobs.status import Queued, Status

MOST_WAITING = 50


class Jobs:
    """The runs of one host. Every method may be called from any thread.

    Where a method takes the id of a run, "" means the current one.
    """

    def __init__(self, host: Host, run: Run) -> None:
        self.history = History(host.cache_dir / RUNS_DIR)
        self._host, self._run = host, run
        self._changed = threading.Condition()
        self._current: Job | None = None
        self._waiting: deque[Job] = deque()
        self._working = False

    def start(self, recipe: Recipe) -> str:
        """Starts a run, or queues it behind the current one; returns its id at once.

        Raises:
            ConfigError: with every problem of the recipe.
            UserError: while a run of that name is training or queued, or too many are queued.
        """
        recipe.check()
        with self._changed:
            self._refuse(recipe)
            return self._enqueue(Job(self._host, recipe, self._run, self.history.begin(recipe)))

    def resume_run(self, run_id: str, max_train_steps: int = 0) -> str:
        """Resumes a run that ended before it was done, from its last resume state.

        Args:
            max_train_steps: the steps of the whole run; 0 leaves them as they were.

        Raises:
            UserError: when there is no such run, it is done, or it is running, here or in another program.
            ConfigError: when its recipe is not valid in this release.
        """
        with self._changed:
            self._refuse(self.history.find(run_id).as_recipe().check())
            log = self.history.reopen(run_id, max_train_steps)
            return self._enqueue(Job(self._host, log.past.as_recipe(), self._run, log))

    def pause(self, run_id: str = "") -> None:
        """Pauses the run after the current step. The host stays busy: its model is still ours."""
        if job := self._find(run_id):
            job.command(paused=True)

    def resume(self, run_id: str = "") -> None:
        if job := self._find(run_id):
            job.command(paused=False)

    def stop(self, save: bool, run_id: str = "") -> None:
        """Ends the run after the current step, paused or not; with `save`, the adapter is written first.

        A queued run leaves the queue.
        """
        if job := self._find(run_id):
            job.command(stop=StopRequested(save=save))
            with self._changed:
                # A stopped job in the queue is over; `_work` would run it for nothing.
                self._waiting = deque(job for job in self._waiting if job.status().live)
                self._changed.notify_all()

    def ask(self, command: Command, run_id: str = "") -> None:
        """Saves a copy or draws the samples after the current step; the run continues."""
        if job := self._find(run_id):
            job.ask(command)

    def status(self, run_id: str = "") -> Status:
        """The state of the run, or how the last one ended; with the queued runs.

        Raises:
            UserError: for an id that is neither running nor queued.
        """
        with self._changed:
            job = self._find(run_id)
            # Copied under the lock, so that a status never mixes two moments.
            waiting = tuple(Queued(other.id, other.name) for other in self._waiting if other is not job)
        if job is None:
            return Status(interrupted=self._interrupted())
        return replace(job.status(), queue=waiting)

    def version(self) -> str:
        """Changes whenever `status` does, and costs less. Never "": that is what a caller has seen who saw nothing."""
        with self._changed:
            job = self._find("")
            waiting = ".".join(other.id for other in self._waiting)
        return f"{job.id}.{job.version}.{waiting}" if job else "idle"

    def past(self) -> list[PastRun]:
        """The history, newest first. A run that a crash ended has the state `interrupted`.

        A run that another program drives keeps the recorded state.
        """
        with self._changed:
            live = {job.id: job.status().state for job in (self._current, *self._waiting) if job and job.status().live}
        return [self._with_live_state(past, live) for past in self.history.runs()]

    def find(self, run_id: str) -> PastRun:
        """One run, as in `past`. Raises UserError when there is none of that id."""
        with self._changed:
            live = {job.id: job.status().state for job in (self._current, *self._waiting) if job and job.status().live}
        return self._with_live_state(self.history.find(run_id), live)

    def forget(self, run_id: str) -> None:
        """Removes a run from the history. Raises UserError while it is running, or where there is none."""
        with self._changed:
            if any(job and job.id == run_id and job.status().live for job in (self._current, *self._waiting)):
                raise UserError("This run is still going.", "Stop it before you remove it.")
            self.history.forget(run_id)

    def wait(self, timeout: float | None = None) -> Status:
        """Waits until no run is running or queued, or for `timeout` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: not self._working, timeout)
        return self.status()

    def _interrupted(self) -> str:
        """The name of the newest run, if a crash ended it and it can be resumed; else ""."""
        newest = next(iter(self.past()), None)
        return newest.name if newest and newest.state == "interrupted" and newest.resumable else ""

    def _find(self, run_id: str) -> Job | None:
        with self._changed:
            if not run_id:
                # The next run is the current one as soon as the last is over, before its thread has taken it.
                over = self._current is None or not self._current.status().live
                return self._waiting[0] if over and self._waiting else self._current
            for job in (self._current, *self._waiting):
                if job and job.id == run_id:
                    return job
        raise UserError(f"No run {run_id!r} is running or queued.", "Look at the status again.")

    def _with_live_state(self, past: PastRun, live: dict[str, str]) -> PastRun:
        if past.id in live:
            return replace(past, state=live[past.id])
        # The operating system drops a dead program's lock, whatever its record says.
        return past if past.ended or self.history.is_driven(past.id) else replace(past, state="interrupted")

    def _refuse(self, recipe: Recipe) -> None:
        name = recipe.output.output_name
        if len(self._waiting) >= MOST_WAITING:
            raise UserError(f"{MOST_WAITING} runs are queued already.", "Wait until some are done.")
        if self._current and self._current.name == name and self._current.status().live:
            raise UserError(f"{name} is still being trained.", "Wait for it, stop it, or choose another name.")
        if any(job.name == name for job in self._waiting):
            raise UserError(f"{name} is queued already.", "Take it out of the queue, or choose another name.")

    def _enqueue(self, job: Job) -> str:
        self._waiting.append(job)
        if not self._working:
            self._working = True
            self._current = self._waiting.popleft()
            # A daemon: closing the WebUI must not wait for a training run.
            threading.Thread(target=self._work, name="train-lora", daemon=True).start()
        return job.id

    def _work(self) -> None:
        """Runs one job after the other until the queue is empty."""
        job: Job | None = self._current
        while job:
            job.work()
            with self._changed:
                job = self._waiting.popleft() if self._waiting else None
                self._current = job or self._current
                self._working = job is not None
                self._changed.notify_all()
