"""One grid at a time: watched, stopped, found again, and kept however it ends."""

from __future__ import annotations

import threading

import pytest
from PIL import Image

from lib_trainer.errors import UserError
from lib_trainer.host.base import GenerateRequest
from lib_trainer.preview.plan import Varied, strength_plan
from lib_trainer.preview.studio import Sheet, Studio
from tests.fakes.easel import Easel

BASE = GenerateRequest("", width_px=16, height_px=16)
SECONDS = 20


@pytest.fixture
def easel(tmp_path) -> Easel:
    easel = Easel(tmp_path)
    easel.put("jeff")
    return easel


def plan_of(prompts=("p", "q")):
    return strength_plan(BASE, prompts, [1], Varied("jeff"), [0, 0.5, 1])


def until(studio: Studio, count: int) -> Sheet:
    """Waits until so many pictures are there."""
    for _ in range(1000):
        if len(studio.sheet().drawn) >= count:
            return studio.sheet()
        threading.Event().wait(0.01)
    raise AssertionError(f"{len(studio.sheet().drawn)} of {count} pictures")


def test_pictures_arrive_one_by_one_and_the_grid_is_kept(easel):
    easel.gate = threading.Semaphore(0)
    studio = Studio(easel)
    assert studio.sheet().state == "idle"
    studio.start(plan_of())
    versions = {studio.sheet().version}
    for number in range(1, 7):
        easel.gate.release()
        sheet = until(studio, number)
        assert sheet.version not in versions
        versions.add(sheet.version)
    sheet = studio.wait(SECONDS)
    assert (sheet.state, len(sheet.drawn)) == ("done", 6)
    assert Image.open(sheet.path).width > 3 * 16
    assert sheet.find(1, 2).cell.request.prompt == "q <lora:jeff:1>"
    assert sheet.find(5, 5) is None
    assert "Strengths of jeff" in sheet.path.with_suffix(".txt").read_text(encoding="utf-8")


def test_a_stop_keeps_what_is_there(easel):
    easel.gate = threading.Semaphore(2)
    studio = Studio(easel)
    studio.start(plan_of())
    until(studio, 2)
    studio.stop()
    assert studio.sheet().stopping
    easel.gate.release()
    sheet = studio.wait(SECONDS)
    assert (sheet.state, len(sheet.drawn), sheet.stopping) == ("stopped", 3, False)
    assert sheet.path.exists()


def test_a_stop_while_it_waits_for_its_turn_draws_nothing(easel):
    studio = Studio(easel)
    with easel.busy:
        studio.start(plan_of())
        assert studio.sheet().state == "waiting"
        studio.stop()
    assert studio.wait(SECONDS).state == "stopped"
    studio.start(plan_of(("r",)))
    assert len(studio.wait(SECONDS).drawn) == 3
    assert len(easel.requests) == 3


def test_a_second_grid_waits_for_the_first(easel):
    easel.gate = threading.Semaphore(0)
    studio = Studio(easel)
    studio.start(plan_of())
    with pytest.raises(UserError, match="already"):
        studio.start(plan_of())
    studio.stop()
    easel.gate.release(10)
    studio.wait(SECONDS)
    studio.start(plan_of())
    assert studio.wait(SECONDS).state == "done"


@pytest.mark.parametrize(
    ("error", "said"),
    [(UserError("Out of memory.", "Smaller."), "Out of memory."), (ValueError("odd"), "ValueError: odd")],
)
def test_a_failure_is_said_and_keeps_what_is_there(easel, error, said):
    easel.broken = {2: error}
    studio = Studio(easel)
    studio.start(plan_of())
    sheet = studio.wait(SECONDS)
    assert (sheet.state, sheet.error, len(sheet.drawn)) == ("failed", said, 2)
    assert sheet.path.exists()


def test_a_name_that_is_not_there_draws_nothing(easel):
    studio = Studio(easel)
    studio.start(strength_plan(BASE, ["p"], [1], Varied("anna"), [1]))
    sheet = studio.wait(SECONDS)
    assert "no LoRA named anna" in sheet.error
    assert (sheet.drawn, sheet.path) == ((), None)
