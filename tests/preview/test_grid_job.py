"""One grid at a time: watched, stopped, found again, and kept however it ends."""

from __future__ import annotations

import threading

import pytest
from PIL import Image

from lib_trainer.errors import UserError
from lib_trainer.host.base import GenerateRequest
from lib_trainer.lora.tags import LoraRef
from lib_trainer.preview.grid_job import GridJob
from lib_trainer.preview.grid_spec import strength_grid
from tests.fakes.easel import Easel
from tests.waiting import PATIENCE_S, until

BASE = GenerateRequest("", width_px=16, height_px=16)


@pytest.fixture
def easel(tmp_path) -> Easel:
    easel = Easel(tmp_path)
    easel.put("jeff")
    return easel


def plan_of(prompts=("p", "q")):
    return strength_grid(BASE, prompts, [1], LoraRef("jeff"), [0, 0.5, 1])


def test_pictures_arrive_one_by_one_and_the_grid_is_kept(easel):
    easel.gate = threading.Semaphore(0)
    grid_job = GridJob(easel)
    assert grid_job.grid_status().state == "idle"
    grid_job.start(plan_of())
    versions = {grid_job.grid_status().version}
    for number in range(1, 7):
        easel.gate.release()
        until(lambda wanted=number: len(grid_job.grid_status().drawn) >= wanted)
        grid_status = grid_job.grid_status()
        assert grid_status.version not in versions
        versions.add(grid_status.version)
    grid_status = grid_job.wait(PATIENCE_S)
    assert (grid_status.state, len(grid_status.drawn)) == ("done", 6)
    assert Image.open(grid_status.path).width > 3 * 16
    assert grid_status.find(1, 2).cell.request.prompt == "q <lora:jeff:1>"
    assert grid_status.find(5, 5) is None
    assert "Strengths of jeff" in grid_status.path.with_suffix(".txt").read_text(encoding="utf-8")


def test_a_stop_keeps_what_is_there(easel):
    easel.gate = threading.Semaphore(2)
    grid_job = GridJob(easel)
    grid_job.start(plan_of())
    until(lambda: len(grid_job.grid_status().drawn) >= 2)
    grid_job.stop()
    assert grid_job.grid_status().stopping
    easel.gate.release()
    grid_status = grid_job.wait(PATIENCE_S)
    assert (grid_status.state, len(grid_status.drawn), grid_status.stopping) == ("stopped", 3, False)
    assert grid_status.path.exists()


def test_a_stop_while_it_waits_for_its_turn_draws_nothing(easel):
    grid_job = GridJob(easel)
    with easel.busy:
        grid_job.start(plan_of())
        assert grid_job.grid_status().state == "waiting"
        grid_job.stop()
    assert grid_job.wait(PATIENCE_S).state == "stopped"
    grid_job.start(plan_of(("r",)))
    assert len(grid_job.wait(PATIENCE_S).drawn) == 3
    assert len(easel.requests) == 3


def test_a_second_grid_waits_for_the_first(easel):
    easel.gate = threading.Semaphore(0)
    grid_job = GridJob(easel)
    grid_job.start(plan_of())
    with pytest.raises(UserError, match="already"):
        grid_job.start(plan_of())
    grid_job.stop()
    easel.gate.release(10)
    grid_job.wait(PATIENCE_S)
    grid_job.start(plan_of())
    assert grid_job.wait(PATIENCE_S).state == "done"


@pytest.mark.parametrize(
    ("error", "said"),
    [(UserError("Out of memory.", "Smaller."), "Out of memory."), (ValueError("odd"), "ValueError: odd")],
)
def test_a_failure_is_said_and_keeps_what_is_there(easel, error, said):
    easel.broken = {2: error}
    grid_job = GridJob(easel)
    grid_job.start(plan_of())
    grid_status = grid_job.wait(PATIENCE_S)
    assert (grid_status.state, grid_status.error, len(grid_status.drawn)) == ("failed", said, 2)
    assert grid_status.path.exists()


def test_a_name_that_is_not_there_draws_nothing(easel):
    grid_job = GridJob(easel)
    grid_job.start(strength_grid(BASE, ["p"], [1], LoraRef("anna"), [1]))
    grid_status = grid_job.wait(PATIENCE_S)
    assert "no LoRA named anna" in grid_status.error
    assert (grid_status.drawn, grid_status.path) == ((), None)
