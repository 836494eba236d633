"""`resume`: resumes a run of this folder, or lists all runs."""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict

from lib_trainer.cli.host import open_host
from lib_trainer.cli.output import Answer
from lib_trainer.cli.run_training import train
from lib_trainer.cli.train import describe_run, summarize_run
from lib_trainer.errors import UserError
from lib_trainer.jobs.history import RUNS_DIR, History, PastRun
from lib_trainer.training.processes import ALONE, Processes


def run_resume(options: argparse.Namespace, processes: Processes = ALONE) -> Answer:
    """Resumes a run from its last saved state. Raises UserError where there is none."""
    host = open_host(options.out, options.checkpoint, processes)
    history = History(host.cache_dir / RUNS_DIR)
    # It takes the run's lock: a page and a command must not resume one run twice.
    log = history.reopen(options.run or _last(history, extend=options.steps > 0).id, options.steps)
    recipe = log.past.as_recipe().check()
    started = time.monotonic()
    finished, said = train(host, recipe, log, processes)
    seconds = time.monotonic() - started
    return Answer({**describe_run(finished, seconds), "notices": list(said)}, (summarize_run(finished, seconds),))


def list_runs(options: argparse.Namespace) -> Answer:
    """Every run of the folder, newest first."""
    runs = History(open_host(options.out, options.checkpoint).cache_dir / RUNS_DIR).runs()
    return Answer({"runs": [asdict(past) for past in runs]}, tuple(map(_line, runs)))


def _last(history: History, *, extend: bool) -> PastRun:
    """The last run that was not done; with `extend` also one that may go on to more steps."""
    found = next((past for past in history.runs() if past.resumable and (extend or not past.extendable)), None)
    if found is None:
        raise UserError("There is no run to resume.", "Start one with the command train.")
    return found


def _line(past: PastRun) -> str:
    # A killed process could not write how it ended.
    state = past.state if past.ended else "cut off"
    return f"{past.id}  {past.name}  {state}, step {past.step} of {past.steps}"
