"""Runs of the embedded model, good and bad, judged again from their recorded figures.

`python -m benchmarks learning --results FOLDER --seeds 3 --kinds good fast few bare --record FILE` wrote them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lib_trainer.evaluation.choice import Choice
from lib_trainer.evaluation.evaluation import figures_of
from lib_trainer.evaluation.verdict import BURNING, LEARNED, MEMORISING, NOT_LEARNED, Pictures, judge
from lib_trainer.events import Evaluated

RUNS = json.loads((Path(__file__).parent.parent / "data" / "learning_runs.json").read_text("utf-8"))
EXPECTED = {
    "good": (LEARNED, "More steps do not help"),
    "fast": (BURNING, "ower"),
    "few": (MEMORISING, "learned by heart"),
    "bare": (BURNING, "ower"),
}


def told(run: dict[str, Any], evaluations: int | None = None) -> tuple[str, str, int]:
    """Verdict, advice and more steps after so many of a run's evaluations."""
    choice = Choice()
    for values in run["evaluations"][:evaluations]:
        figures = figures_of(Evaluated.from_values(values))
        choice.take(figures)
    return judge(figures, choice, Pictures("word", few=run["kind"] == "few"))


def name_of(run: dict[str, Any]) -> str:
    return f"{run['subject']} {run['kind']} {run['seed']}"


@pytest.mark.parametrize("run", RUNS, ids=name_of)
def test_a_run_is_told_what_it_is(run: dict[str, Any]) -> None:
    verdict, said = EXPECTED[run["kind"]]
    found, advice, more = told(run)
    assert found == verdict and said in advice and not more


@pytest.mark.parametrize("run", [run for run in RUNS if run["kind"] == "good"], ids=name_of)
def test_too_few_steps_are_told(run: dict[str, Any]) -> None:
    found, advice, more = told(run, evaluations=1)
    assert found == NOT_LEARNED and more > 0 and "more steps may help" in advice


def test_every_kind_is_there() -> None:
    assert {(run["subject"], run["kind"]) for run in RUNS} == {(s, k) for s in ("face", "style") for k in EXPECTED}
