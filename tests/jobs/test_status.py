"""What a status says by itself."""

from __future__ import annotations

from dataclasses import replace

import pytest

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
