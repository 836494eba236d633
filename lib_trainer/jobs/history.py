"""The record of every run, in a folder of its own: recipe, state, loss curve, samples and what a resume needs.

ID/run.json            the run's state; rewritten whole at every change
ID/losses.csv          a line a step: step, epoch, loss, learning_rate, seconds
ID/NAME.report.html    what was learned, where that was measured
ID/samples/*.png       pictures drawn on the way, and NAME.report.png: the last and the best step
ID/state.safetensors   what a resume needs, until the run is done
ID/lock                locked by the program that drives the run
"""

from __future__ import annotations

import json
import logging
import re
import secrets
import shutil
import time
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from lib_trainer.config.recipe import Recipe
from lib_trainer.errors import UserError
from lib_trainer.events import Evaluated, Event, Finished, Sampled, Saved, Started, StateSaved, Step
from lib_trainer.jobs.lock import RunLock, RunLocked, is_locked
from lib_trainer.jobs.loss_log import LossFile
from lib_trainer.jobs.past_run import PastRun, read_run
from lib_trainer.utils.atomic_file import replace_file

RUNS_DIR = "runs"
RUN_FILE, SAMPLE_DIR, STATE_FILE = "run.json", "samples", "state.safetensors"
KEPT_RUNS = 200
# A resume state takes up to some gigabytes: only the newest unfinished runs keep theirs.
KEPT_STATES = 5
ENDED = frozenset(("done", "stopped", "failed"))
_ID = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{6}")
_log = logging.getLogger(__name__)


class History:
    """All runs of one host. Folders that cannot be read are skipped."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # run.json -> its content, by the file's time, size and number: every change makes a new file.
        self._read: dict[Path, tuple[tuple[int, int, int], PastRun | None]] = {}

    def begin(self, recipe: Recipe) -> RunLog:
        """A folder for a new run. Raises UserError while another program trains one of that name."""
        # Before the new folder exists, so that it is never among those that are removed.
        self._prune()
        self._refuse_twins(recipe.output.output_name)
        now = time.time()
        # Sortable by time; the random part tells runs of one second apart.
        run_id = time.strftime("%Y%m%d-%H%M%S-", time.localtime(now)) + secrets.token_hex(3)
        past = PastRun(run_id, recipe.output.output_name, started=now, recipe=recipe.flat())
        log = RunLog(self.folder / run_id, past, self._lock(past))
        log.write_record()
        return log

    def reopen(self, run_id: str, max_train_steps: int = 0) -> RunLog:
        """The log of a run that is resumed, with another number of steps where one is given.

        Raises:
            UserError: when there is no such run, it is done, or another program drives it or one of its name.
        """
        past = self.find(run_id)
        if not past.resumable:
            raise UserError(f"{past.name} is done: there is nothing to resume.", "Train again with its settings.")
        recipe = past.recipe
        if max_train_steps:
            recipe = past.as_recipe().with_values({"max_train_steps": max_train_steps}).flat()
        if past.extendable and max_train_steps <= past.step:
            raise UserError(f"{past.name} has taken all its steps.", f"Give it more than {past.step} steps.")
        lock = self._lock(past)
        try:
            self._refuse_twins(past.name, but=run_id)
        except UserError:
            lock.release()
            raise
        # Another program may have resumed and ended it before we had the lock.
        return RunLog(self.folder / run_id, replace(self.find(run_id), error="", recipe=recipe), lock)

    def runs(self) -> list[PastRun]:
        """Newest first."""
        # A damaged record is logged and skipped: it must not hide the others.
        paths = list(self.folder.glob(f"*/{RUN_FILE}"))
        for gone in self._read.keys() - set(paths):
            self._read.pop(gone, None)
        found = [past for path in paths if (past := self._record(path))]
        return sorted(found, key=lambda past: past.started, reverse=True)

    def find(self, run_id: str) -> PastRun:
        """Raises UserError when there is no run of that id."""
        path = self.folder / run_id / RUN_FILE
        past = self._record(path) if _ID.fullmatch(run_id) and path.exists() else None
        if past is None:
            raise UserError(f"Run {run_id!r} no longer exists.", "Look at the list of past runs again.")
        return past

    def losses(self, run_id: str) -> list[tuple[int, float, float]]:
        """(step, loss, learning rate) of every step. Raises UserError when there is no run of that id."""
        self.find(run_id)
        return LossFile(self.folder / run_id).read()

    def forget(self, run_id: str) -> None:
        """Removes the record of a run; the files in the LoRA folder stay.

        Raises:
            UserError: when there is no such run, or another program drives it.
        """
        self._lock(self.find(run_id)).release()
        shutil.rmtree(self.folder / run_id, ignore_errors=True)

    def is_driven(self, run_id: str) -> bool:
        """Whether a living program drives the run, this one included."""
        return is_locked(self.folder / run_id)

    def _record(self, path: Path) -> PastRun | None:
        """As `read_run`; a file that has not changed is not read again."""
        try:
            found = path.stat()
        except OSError:
            return None
        stamp = found.st_mtime_ns, found.st_size, found.st_ino
        known = self._read.get(path)
        if known is None or known[0] != stamp:
            known = self._read[path] = stamp, read_run(path)
        return known[1]

    def _lock(self, past: PastRun) -> RunLock:
        try:
            return RunLock(self.folder / past.id)
        except RunLocked:
            raise _driven_elsewhere(past.name) from None

    def _refuse_twins(self, name: str, but: str = "") -> None:
        """Two programs that train one name would write the same file."""
        for past in self.runs():
            if past.name == name and past.id != but and not past.ended and self.is_driven(past.id):
                raise _driven_elsewhere(name)

    def _prune(self) -> None:
        runs = self.runs()
        for past in runs[KEPT_RUNS:]:
            if not self.is_driven(past.id):
                shutil.rmtree(self.folder / past.id, ignore_errors=True)
        # `runs` is newest first, so the oldest states go.
        states = [path for past in runs[:KEPT_RUNS] if (path := self.folder / past.id / STATE_FILE).exists()]
        for path in states[KEPT_STATES:]:
            if not is_locked(path.parent):
                with suppress(OSError):
                    path.unlink()


class RunLog:
    """Writes the record of one run. A full disk is logged and fails no run. `lock` is released when the run ends."""

    def __init__(self, folder: Path, past: PastRun, lock: RunLock) -> None:
        self.folder, self.past, self.lock = folder, past, lock
        self._losses = LossFile(folder)

    def take(self, event: Event) -> None:
        """Records an event of the run."""
        match event:
            case Started():
                self._losses.continue_after(event.step)
                evaluations = tuple(found for found in self.past.evaluations if found["step"] <= event.step)
                self.write_changes(
                    state="training", ended=0.0, step=event.step, steps=event.steps, pictures=event.pictures,
                    checkpoint=event.checkpoint, evaluations=evaluations,
                )  # fmt: skip
            case Step():
                self.past = replace(self.past, step=event.number, steps=event.total, loss=event.loss)
                self._losses.add(event)
            case StateSaved():
                self.write_changes(kept_step=event.step)
            case Saved():
                # A copy that is saved again moves to the end, where the newest is.
                self.write_changes(
                    files=(*(file for file in self.past.files if file != event.path.name), event.path.name)
                )
            case Sampled():
                self.write_changes(samples=(*self.past.samples, (event.step, event.path.name, event.prompt)))
            case Evaluated():
                self.write_changes(evaluations=(*self.past.evaluations, asdict(event)))
            case Finished():
                found = event.evaluated and asdict(event.evaluated)
                self.past = replace(self.past, step=event.steps, evaluated=found)

    def finish(self, state: str, error: str = "") -> None:
        """Records the end of the run: done, stopped or failed."""
        self._losses.close()
        self.write_changes(state=state, ended=time.time(), error=error)
        if state == "done" and not self.past.extendable:
            with suppress(OSError):
                (self.folder / STATE_FILE).unlink(missing_ok=True)
        self.lock.release()

    def write_changes(self, **changes: Any) -> None:
        self.past = replace(self.past, **changes)
        self.write_record()

    def write_record(self) -> None:
        content = json.dumps(asdict(self.past), ensure_ascii=False, indent=1).encode()
        try:
            replace_file(self.folder / RUN_FILE, content)
        except OSError as error:
            _log.warning("The history of %s cannot be written: %s", self.past.name, error)

    def evaluations(self) -> list[Evaluated]:
        """What was found before this life of the run."""
        return [Evaluated.from_values(found) for found in self.past.evaluations]

    def losses(self) -> list[tuple[int, float, float]]:
        """(step, loss, learning rate) of the steps from before the resume."""
        return self._losses.read()


def _driven_elsewhere(name: str) -> UserError:
    return UserError(f"{name} is being trained by another program.", "Wait for it, or stop it there.")
