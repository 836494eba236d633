"""What is said of a run's figures."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from lib_trainer.evaluation.measures import Figures, Parabola
from lib_trainer.evaluation.verdict import BURNING, LEARNED, MEMORISING, NOT_LEARNED, Pictures, judge
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
        ({"drift": 0.39}, CONVERGED, BURNING, "drift 0.39"),
        ({"held_out": Parabola(1.2, -1.0)}, CONVERGED, BURNING, "least at strength 0.60"),
        ({"trained": Parabola(0.75, -0.04)}, CONVERGED, MEMORISING, "learned by heart (41% ahead"),
        ({"bound": -0.2}, CONVERGED, NOT_LEARNED, "never bind the trigger word “jeff”"),
        ({"bound": -0.2}, GROWING, NOT_LEARNED, "more steps may help"),
        ({"bound": -0.007}, CONVERGED, LEARNED, "More steps do not help"),
        ({"bound": None}, CONVERGED, LEARNED, "More steps do not help"),
        ({"trained": Parabola(0.01, 0.0), "held_out": Parabola(0.01, 0.0)}, CONVERGED, NOT_LEARNED, "Raise the"),
    ],
)  # fmt: skip
def test_the_verdict_and_what_to_do(changes: dict, scores: tuple[float, ...], verdict: str, said: str) -> None:
    found, advice, more = judge(Figures(**{**HEALTHY, **changes}), after(*scores), Pictures("jeff"))
    assert found == verdict and said in advice
    assert (more > 0) == ("more steps may help" in advice)


def test_a_forecast_is_round() -> None:
    _, advice, more = judge(Figures(**HEALTHY), after(0.111, 0.222, 0.3), Pictures("jeff"))
    assert f"About {more} more steps" in advice and len(str(more).rstrip("0")) <= 2
    # Seven evaluations more, 259 steps: rather a few too many than too few.
    assert judge(Figures(**HEALTHY), after(0.111, 0.222, 0.3, every=37), Pictures("jeff"))[2] == 260


# The last evaluation of runs of `python -m benchmarks learning`, seed 1: L, T, drift, Bind and s*.
RUNS = {
    "face good": ((0.434, 0.536, 0.214, 0.007, 1.16), LEARNED, ""),
    "style good": ((0.644, 0.721, 0.200, 0.007, 0.88), LEARNED, ""),
    "face, rate × 10": ((0.476, 0.598, 0.395, -0.014, 0.91), BURNING, "lower rate"),
    "style, rate × 10": ((0.432, 0.449, 0.884, 0.004, 2.00), BURNING, "lower rate"),
    "face, no regularisation": ((0.314, 0.709, 0.958, 0.001, 0.67), BURNING, "Lower the rate"),
    "style, no regularisation": ((0.652, 0.741, 0.746, 0.013, 0.87), BURNING, "Unrelated prompts"),
    "face, 6 pictures": ((None, 0.488, 0.170, 0.009, 1.87), MEMORISING, "More pictures"),
    "style, 6 pictures": ((None, 0.699, 0.119, 0.019, 1.00), MEMORISING, "More pictures"),
    "face, no trigger": ((0.489, 0.588, 0.185, -0.002, 1.33), NOT_LEARNED, "into every caption"),
    "style, no trigger": ((0.271, 0.421, 0.342, -0.006, 0.88), NOT_LEARNED, "into every caption"),
}  # fmt: skip


@dataclass(frozen=True)
class Recorded:
    """What a verdict looks at, as a run had it."""

    learned: float
    drift: float
    memorised: float | None
    bound: float
    least_loss_strength: float


@pytest.mark.parametrize("name", RUNS)
def test_runs_of_the_embedded_model_are_told_what_they_are(name: str) -> None:
    (held_out, trained, drift, bind, peak), verdict, said = RUNS[name]
    few, named = "6 pictures" in name, "no trigger" not in name
    learned = trained if held_out is None else held_out
    found = Recorded(learned, drift, None if held_out is None else trained - held_out, bind, peak)
    told, advice, _ = judge(found, after(*CONVERGED), Pictures("jeff", named, few))
    assert told == verdict and said in advice


def test_too_few_steps_are_asked_for() -> None:
    """The style of seed 1 after 40, 80 and 120 of the steps that it needs."""
    found = Recorded(0.626, 0.261, 0.059, 0.003, 0.87)
    told, advice, more = judge(found, after(0.391, 0.522, 0.642), Pictures("style"))
    assert told == NOT_LEARNED and more > 0 and "more steps may help" in advice


def test_pictures_that_a_person_does_not_hold_out_are_not_called_learned_by_heart() -> None:
    found = Recorded(0.7, 0.1, None, 0.0, 1.0)
    assert judge(found, after(*CONVERGED), Pictures("jeff"))[0] == LEARNED
