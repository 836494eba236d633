"""Which step is best, when a run has converged, and how many steps it still needs."""

from __future__ import annotations

import pytest

from lib_trainer.evaluation.choice import Choice
from lib_trainer.evaluation.measures import Figures, Parabola


def after(*scores: float, every: int = 100) -> Choice:
    """A choice that has taken evaluations with these J: T alone, growing up to strength 1, without drift."""
    choice = Choice()
    for place, score in enumerate(scores, start=1):
        choice.take(Figures(place * every, Parabola(score, 0.0), None, 0.0, None, {}))
    return choice


def test_the_best_step_and_strength_are_noted() -> None:
    choice = Choice()
    assert choice.take(Figures(50, Parabola(1.0, -0.4), None, 0.0, None, {}))
    assert (choice.best_step, choice.best_strength, choice.scores) == (50, 1.0, [pytest.approx(0.6)])
    assert choice.take(Figures(100, Parabola(1.6, -1.0), None, 0.0, None, {}))
    assert not choice.take(Figures(150, Parabola(1.5, -1.0), None, 0.0, None, {}))
    assert (choice.best_step, choice.best_strength) == (100, 0.9)


@pytest.mark.parametrize(
    ("scores", "converged"),
    [
        ((), False),
        ((0.1,), False),
        ((0.3, 0.2), False),
        ((0.3, 0.2, 0.25), True),
        ((0.3, 0.2, 0.31), False),
        ((0.3, 0.3, 0.3), True),
        ((0.3, 0.305, 0.308), True),
        # Each gains 2 %, and both together more than 3 %.
        ((0.3, 0.306, 0.312), False),
        ((-0.3, -0.2, -0.199), False),
    ],
)
def test_two_evaluations_without_a_gain_that_is_worth_it_end_it(scores: tuple[float, ...], converged: bool) -> None:
    assert after(*scores).converged is converged


def test_a_run_has_settled_where_it_first_converged() -> None:
    assert after(0.3, 0.5, 0.4).settled_at is None
    assert after(0.3, 0.5, 0.4, 0.4, 0.6).settled_at == 400 and not after(0.3, 0.5, 0.4, 0.4, 0.6).converged


def test_a_run_that_is_measured_often_goes_on() -> None:
    """As much is gained every step: never 3 % from one of many evaluations to the next but one."""
    growing = [0.005 * count for count in range(1, 101)]
    assert not any(after(*growing[:count], every=5).converged for count in range(1, 101))
    # Then nothing more. The last gain that is worth it comes with the 98th, which is three quarters of 131.
    ends = [after(*growing, *[0.5] * more, every=5).converged for more in range(40)]
    assert ends.index(True) == 31


def test_a_gain_of_next_to_nothing_is_flat() -> None:
    assert after(0.30, 0.305).is_flat and not after(0.30, 0.305).converged
    assert not after(0.30, 0.33).is_flat and not after(0.3).is_flat


def test_steps_to_go_follow_gains_that_shrink() -> None:
    # Gains 0.2, 0.1: they halve. 3 % of 0.3 is 0.009: log(0.09)/log(0.5) = 3.5, so four evaluations more.
    assert after(0.2, 0.3).steps_to_go() == 400
    assert after(0.3, 0.2, 0.1).steps_to_go() == 0
    # Gains that hardly shrink are taken to shrink by a tenth: log(0.3)/log(0.9) = 11.4.
    assert after(*(0.1 * count for count in range(1, 10)), 0.9999).steps_to_go() == 1200
    assert after(0.1).steps_to_go() == 100, "one evaluation says nothing yet: as many again"
    assert after(0.1, 0.2).steps_to_go() <= 3 * 200, "no forecast goes far beyond what is known"


def test_of_equal_steps_the_first_is_best() -> None:
    choice = Choice()
    assert choice.note(100, 0.5, 0.9) and not choice.note(200, 0.5, 1.0)
    assert (choice.best_step, choice.best_strength) == (100, 0.9), "more steps have brought nothing"
