"""Step 4 on a fake host."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

pytest.importorskip("gradio")

from lib_trainer.jobs.queue import Jobs
from lib_trainer.preview.grid_job import GridJob
from lib_trainer.preview.grid_request import STRENGTHS, GridRequest
from lib_trainer.ui.grid_actions import GridActions
from tests.ui.fakes import FakeHost, SlowRun
from tests.waiting import PATIENCE_S

REQUEST = GridRequest(
    STRENGTHS, "jeff", "0 · 0.5 · 1", None, "0.4 · 0.8", "jeff as a hero\na cat", "blurry", 515, 512, 8, 5.5, "DDIM",
    "Karras", "7",
)  # fmt: skip


class Room:
    """Step 4 on a fake host that holds a run of three saved steps, and a style."""

    def __init__(self, folder, run=None) -> None:
        self.host = FakeHost(folder)
        self.jobs = Jobs(self.host, run or SlowRun(steps=3, seconds=0.001))
        self.grid_job = GridJob(self.host)
        self.actions = GridActions(self.host, self.jobs, self.grid_job)
        self.host.put("jeff-000001", "jeff-000002", "jeff", "oil")
        self.card("oil", {"activation text": "oil_style", "preferred weight": 0.6})

    def card(self, name: str, content: dict) -> None:
        (self.host.lora_dir / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")

    def start(self, **changes):
        """(message, html) of pressing "Generate grid"."""
        message, _, _, html, *_ = self.actions.start(-1, *vars(replace(REQUEST, **changes)).values())
        return message, html

    def made(self, **changes) -> list[str]:
        """The prompts of a whole grid."""
        message, _ = self.start(**changes)
        assert message == ""
        assert self.grid_job.wait(PATIENCE_S).state == "done"
        return [request.prompt for request in self.host.requests]
