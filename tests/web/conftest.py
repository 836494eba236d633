"""A program with our routes, as a browser, a script or another site sees it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from lib_trainer.preview.grid_job import GridJob
from lib_trainer.ui.status_view import show_panel

pytest.importorskip("fastapi")
pytest.importorskip("httpx")

from fastapi import FastAPI
from fastapi.testclient import TestClient

from lib_trainer.host.access import Access
from lib_trainer.jobs.job import Run
from lib_trainer.jobs.queue import Jobs
from lib_trainer.web.router import PREFIX, make_router
from tests.ui.fakes import FakeHost, SlowRun, draw_pictures
from tests.waiting import PATIENCE_S


@dataclass
class Program:
    """A program that was started with some options."""

    folder: Path
    steps: int = 3
    options: dict[str, Any] = field(default_factory=dict)
    run: Run | None = None

    def __post_init__(self) -> None:
        self.host = FakeHost(self.folder)
        self.jobs = Jobs(self.host, self.run or SlowRun(self.steps, 0.005))
        self.access = Access(**{"changes": True, "folders": (self.folder,), **self.options})
        self.app = FastAPI()
        self.app.include_router(make_router(self.host, self.jobs, self.access, GridJob(self.host), show_panel))
        self.client = TestClient(self.app, base_url="http://127.0.0.1:7860")
        self.pictures = self.folder / "pictures"
        if not self.pictures.exists():
            draw_pictures(self.pictures, count=1, side_px=64)

    def get(self, path: str, **how: Any) -> Any:
        return self.client.get(PREFIX + path, **how)

    def post(self, path: str, json: Any = None, **how: Any) -> Any:
        return self.client.post(PREFIX + path, json=json, **how)

    def start(self, name: str = "jeff", folder: str = "", **how: Any) -> Any:
        recipe = {"output_name": name, "train_data_dir": folder or str(self.pictures)}
        return self.post("/jobs", {"recipe": recipe}, **how)


@pytest.fixture
def program(tmp_path):
    """Starts a program with options; its runs are ended with the test."""
    started: list[Program] = []

    def start(steps: int = 3, run: Run | None = None, **options: Any) -> Program:
        started.append(Program(tmp_path, steps, options, run))
        return started[-1]

    yield start
    for one in started:
        one.jobs.stop(save=False)
        one.jobs.wait(PATIENCE_S)
