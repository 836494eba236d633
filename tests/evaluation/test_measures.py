"""The measures against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from lib_trainer.evaluation.measures import (
    Figures,
    Parabola,
    bound,
    drift,
    paired_difference,
    share_gone,
    shares_gone,
    squared_errors,
)

BASE = torch.tensor([[0.1, 0.4], [0.3, 0.4]])
LOSSES = torch.tensor([[0.05, 0.2], [0.15, 0.4]])


def figures(**changes) -> Figures:
    values = {
        "step": 100, "trained": Parabola.through(0.45, 0.5), "held_out": Parabola.through(0.25, 0.3), "drift": 0.2,
        "bound": 0.1, "by_picture": {},
    }  # fmt: skip
    return Figures(**{**values, **changes})


def test_the_share_that_is_gone() -> None:
    # t=0: 1 − 0.1/0.2 = 0.5; t=1: 1 − 0.3/0.4 = 0.25.
    assert share_gone(LOSSES, BASE) == pytest.approx(0.375)
    # picture 0: (0.05/0.2 + 0.2/0.4)/2; picture 1: (0.15/0.2 + 0)/2.
    assert shares_gone(LOSSES, BASE).tolist() == pytest.approx([0.375, 0.375])
    assert share_gone(BASE, BASE) == 0
    assert share_gone(2 * BASE, BASE) == pytest.approx(-1)


def test_squared_errors_are_per_output() -> None:
    wanted = torch.zeros(2, 1, 1, 2)
    predicted = torch.tensor([[[[1.0, 3.0]]], [[[0.0, 2.0]]]])
    assert squared_errors(predicted, wanted).tolist() == [5.0, 2.0]


def test_drift_is_in_units_of_the_bases_own_error() -> None:
    moved = torch.tensor([[0.02, 0.2], [0.06, 0.2]])
    # t=0: 0.04/0.2 = 0.2; t=1: 0.2/0.4 = 0.5.
    assert drift(moved, BASE) == pytest.approx(0.35)


def test_the_parabola_goes_through_its_points() -> None:
    # 1.2 s − 0.7 s²: 0.468 at 0.6, 0.5 at 1, best at 0.857….
    curve = Parabola.through(0.468, 0.5)
    assert (curve.slope, curve.bend) == pytest.approx((1.2, -0.7))
    assert curve.at(0.6) == pytest.approx(0.468) and curve.at(1.0) == pytest.approx(0.5) and curve.at(0) == 0
    assert curve.peak == pytest.approx(1.2 / 1.4)


@pytest.mark.parametrize(
    ("slope", "bend", "peak"), [(1.0, 0.0, math.inf), (0.5, 0.5, math.inf), (-1.0, -1.0, 0.0), (-0.5, 0.0, 0.0)]
)
def test_a_parabola_without_a_peak(slope: float, bend: float, peak: float) -> None:
    assert Parabola(slope, bend).peak == peak


def test_what_follows_from_an_evaluation() -> None:
    found = figures()
    assert (found.learned, found.memorised) == pytest.approx((0.3, 0.2))
    assert found.score(1.0) == pytest.approx(0.3 / 2 + 0.5 / 2 - 0.15 * 0.2)
    assert found.score(0.6) == pytest.approx(0.25 / 2 + 0.45 / 2 - 0.15 * 0.2 * 0.36)
    alone = figures(held_out=None)
    assert (alone.learned, alone.memorised) == (pytest.approx(0.5), None)
    assert alone.score(1.0) == pytest.approx(0.5 - 0.15 * 0.2)
    assert alone.least_loss_strength == found.trained.peak != found.least_loss_strength == found.held_out.peak


def test_the_best_strength_is_the_strongest_that_loses_next_to_nothing() -> None:
    # L = T = 1.6 s − s²: most, 0.64, is gone at 0.8, and 3 % less from 0.8 (1 + √0.03) = 0.939 on.
    curve = Parabola(1.6, -1.0)
    assert figures(trained=curve, held_out=curve, drift=0.0).best() == (0.9, pytest.approx(0.63))
    # Drift weighs on the step, not on the strength.
    assert figures(trained=curve, held_out=curve, drift=1.0).best() == (0.9, pytest.approx(0.63 - 0.15 * 0.81))
    assert figures(trained=Parabola(1.0, 0.0), held_out=None, drift=0.0).best()[0] == 1.0
    # Where training pictures want more than held-out ones, what counts is their mean: 1.8 s − s², most at 0.9.
    assert figures(trained=Parabola(2.0, -1.0), held_out=curve, drift=0.0).best()[0] == 1.0
    assert figures(trained=Parabola(-1.0, -1.0), held_out=None, drift=0.0).best()[0] == 0.4, "the least harm"


def test_paired_differences() -> None:
    mean, error = paired_difference([0.1, 0.2, 0.3], [0.2, 0.4, 0.6])
    # Differences 0.1, 0.2, 0.3: deviation 0.1, over √3.
    assert (mean, error) == pytest.approx((0.2, 0.1 / math.sqrt(3)))
    assert paired_difference([0.1], [0.3]) == (pytest.approx(0.2), math.inf)


def test_what_the_trigger_adds() -> None:
    assert bound(0.4, 0.3) == pytest.approx(0.1)
