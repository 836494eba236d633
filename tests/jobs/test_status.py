"""What a status says by itself."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lib_trainer.jobs.past_run import PastRun
from lib_trainer.jobs.status import Status
from tests.jobs.runs import evaluated_at

DONE = Status(state="done", step=8, kept_step=8, evaluated=evaluated_at(8, more_steps=5))


@pytest.mark.parametrize(
    ("changes", "more"),
    [
        ({}, 5),
        ({"kept_step": 7}, 0),
        ({"kept_step": -1}, 0),
        ({"state": "failed"}, 0),
        ({"state": "stopped"}, 0),
        ({"evaluated": None}, 0),
    ],
)
def test_more_steps_are_offered_for_a_run_that_is_done_and_kept_its_last_step(changes: dict, more: int) -> None:
    assert replace(DONE, **changes).more_steps == more


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({}, 13),
        ({"evaluated": {"more_steps": 0}}, 0),
        ({"evaluated": None}, 0),
        ({"kept_step": 7}, 0),
        ({"step": 0}, 0),
    ],
)
def test_a_past_run_goes_on_to_the_steps_that_may_still_help(changes: dict, steps: int) -> None:
    past = PastRun("id", "jeff", "done", step=8, kept_step=8, evaluated={"more_steps": 5})
    assert replace(past, **changes).proposed_steps == steps


def test_before_there_is_a_plan_nothing_is_said_of_memory() -> None:
    assert (Status().peak_bytes, Status().planned_bytes, Status().budget_bytes) == (0, 0, 0)
