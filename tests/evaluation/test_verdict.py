"""What is said of a run's figures."""

from __future__ import annotations

import pytest

from lib_trainer.evaluation.measures import Figures, Parabola
from lib_trainer.evaluation.verdict import BURNING, LEARNED, MEMORISING, NOT_LEARNED, judge
from tests.evaluation.test_choice import after

HEALTHY = {
    "step": 300, "trained": Parabola(0.5, -0.1), "held_out": Parabola(0.4, -0.1), "drift": 0.1, "bound": 0.1,
    "by_picture": {},
}  # fmt: skip
CONVERGED, GROWING = (0.3, 0.29, 0.28), (0.1, 0.2, 0.28)


@pytest.mark.parametrize(
    ("changes", "scores", "verdict", "said"),
    [
        ({}, CONVERGED, LEARNED, "Use step 100 at strength 1."),
        ({}, GROWING, NOT_LEARNED, "more steps may help"),
        ({"drift": 0.36}, CONVERGED, BURNING, "drift 0.36"),
        ({"held_out": Parabola(1.2, -1.0)}, CONVERGED, BURNING, "least at strength 0.60"),
        ({"trained": Parabola(0.75, -0.04)}, CONVERGED, MEMORISING, "learned by heart (41% ahead"),
        ({"held_out": None, "trained": Parabola(0.8, -0.1)}, GROWING, MEMORISING, "More pictures"),
        ({"bound": -0.2}, CONVERGED, NOT_LEARNED, "never bind the trigger word “jeff”"),
        ({"bound": -0.007}, CONVERGED, LEARNED, "More steps do not help"),
        ({"bound": None}, CONVERGED, LEARNED, "More steps do not help"),
        ({"trained": Parabola(0.01, 0.0), "held_out": Parabola(0.01, 0.0)}, CONVERGED, NOT_LEARNED, "Raise the"),
    ],
)  # fmt: skip
def test_the_verdict_and_what_to_do(changes: dict, scores: tuple[float, ...], verdict: str, said: str) -> None:
    found, advice, more = judge(Figures(**{**HEALTHY, **changes}), after(*scores), "jeff")
    assert found == verdict and said in advice
    assert (more > 0) == ("more steps may help" in advice)


def test_a_forecast_is_round() -> None:
    _, advice, more = judge(Figures(**HEALTHY), after(0.111, 0.222, 0.3), "jeff")
    assert f"About {more} more steps" in advice and len(str(more).rstrip("0")) <= 2
