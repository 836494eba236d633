"""What watching costs: the same run with nobody looking, and with browsers that ask for the view every second.

    python -m benchmarks.watching OUT [--steps 150] [--pairs 6] [--browsers 2]

Runs are paired: each watched run has its unwatched one right beside it, in alternating order, so that a machine which
grows slower cannot be taken for the price of watching. What is compared is the median step.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from fastapi import FastAPI
from fastapi.testclient import TestClient

from lib_trainer.app import default_run
from lib_trainer.cli.host import open_host
from lib_trainer.demo.recipes import DEMO_RUNS
from lib_trainer.host.access import Access
from lib_trainer.jobs.queue import Jobs
from lib_trainer.preview.grid_job import GridJob
from lib_trainer.ui.status_view import show_panel
from lib_trainer.web.router import PREFIX, make_router

ASK_SECONDS = 1.0


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--browsers", type=int, default=2)
    given = parser.parse_args(arguments)
    host = open_host(given.out)
    jobs = Jobs(host, default_run)
    app = FastAPI()
    app.include_router(make_router(host, jobs, Access(), GridJob(host), show_panel))
    demo_run = DEMO_RUNS["face"]
    recipe = demo_run.recipe(demo_run.draw(given.out / "data")).with_values({"max_train_steps": given.steps})
    pairs = []
    for number in range(given.pairs):
        order = (False, True) if number % 2 else (True, False)
        seconds = {}
        for watched in order:
            run_id = jobs.start(recipe)
            with Browsers(app, given.browsers if watched else 0):
                jobs.wait()
            seconds[watched] = _median_step(jobs, run_id)
        pairs.append((seconds[False], seconds[True]))
    costs = [watched / alone - 1 for alone, watched in pairs]
    result = {"alone_s": [a for a, _ in pairs], "watched_s": [w for _, w in pairs], "median_cost": median(costs)}
    sys.stdout.write(json.dumps(result) + "\n")


class Browsers:
    """So many pages that show the run, while entered."""

    def __init__(self, app: FastAPI, count: int) -> None:
        self._over = threading.Event()
        self._client = TestClient(app, base_url="http://127.0.0.1")
        self._threads = [threading.Thread(target=self._look) for _ in range(count)]

    def __enter__(self) -> Browsers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _look(self) -> None:
        version = ""
        while not self._over.wait(ASK_SECONDS):
            version = self._client.get(f"{PREFIX}/view", params={"seen": version}).json()["version"]


def _median_step(jobs: Jobs, run_id: str) -> float:
    path = jobs.history.folder / run_id / "losses.csv"
    rows = path.read_text().splitlines()[1:]
    # The first steps warm up.
    return median(float(row.split(",")[-1]) for row in rows[10:])


if __name__ == "__main__":
    main(sys.argv[1:])
