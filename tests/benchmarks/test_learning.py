"""The shares that the study tells, on cells that were made up."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from benchmarks.learning.cells import Cell, Score
from benchmarks.learning.picks import Pick, cell_of, cells_of, picks, shares


def cell(step: int, strength: float, *likenesses: float, variety: float = 1.0) -> Cell:
    first, second = (Score(likeness, 0.5, 1.0, variety) for likeness in likenesses)
    return Cell(step, strength, (first, second))


def evaluation(step: int, learned: float, drift: float = 0.0) -> dict[str, Any]:
    figures = {"learned": learned, "trained": learned, "drift": drift, "memorised": 0.0, "bound": 0.0}
    other = {"least_loss_strength": 1.0, "score": 0.0, "strength": 1.0, "best_step": 0, "best_strength": 1.0}
    # Straight lines over strength: the strongest is best.
    partial = {"trained": 0.6 * learned, "held_out": 0.6 * learned}
    return {"step": step, **figures, **other, "verdict": "", "advice": "", "at_partial": partial}


def run_of(*cells: Cell, learned: tuple[float, ...] = ()) -> dict[str, Any]:
    found = [evaluation(64 * count, share) for count, share in enumerate(learned, start=1)]
    # As it comes back from its file.
    return {"cells": [{**asdict(item), "halves": [asdict(half) for half in item.halves]} for item in cells],
            "evaluations": found}  # fmt: skip


def test_no_cell_wins_a_cross_fitted_share_by_its_own_luck() -> None:
    """Two cells that are alike: each is lucky with the seeds of one half."""
    values = run_of(cell(64, 1.0, 0.8, 0.4), cell(128, 1.0, 0.4, 0.8), cell(192, 1.0, 0.6, 0.6))
    plain, fitted = shares(values, Pick(192, 1.0, 0))["A"]
    # All have 0.6 on average. One half names the cell that has 0.4 by the other, of which 0.6 is 1.5.
    assert (plain, fitted) == (pytest.approx(1.0), pytest.approx(1.5))
    plain, fitted = shares(values, Pick(64, 1.0, 0))["A"]
    assert fitted == pytest.approx((0.4 / 0.4 + 0.8 / 0.4) / 2)
    better = run_of(cell(64, 1.0, 0.8, 0.8), cell(128, 1.0, 0.4, 0.4))
    assert shares(better, Pick(128, 1.0, 0)) == {"A": (0.5, 0.5), "B": (0.5, 0.5)}


def test_variety_counts_for_b_alone_and_one_at_most() -> None:
    values = run_of(cell(64, 1.0, 0.8, 0.8, variety=1.4), cell(128, 1.0, 0.8, 0.8, variety=0.5))
    assert shares(values, Pick(128, 1.0, 0)) == {"A": (1.0, 1.0), "B": (0.5, 0.5)}
    assert cells_of(values)[0].whole.b == pytest.approx(0.4)


def test_a_strength_that_is_not_drawn_lies_between_its_neighbours() -> None:
    cells = [cell(64, 1.0, 0.8, 0.6), cell(64, 0.8, 0.4, 0.2), cell(64, 0.6, 0.0, 0.0), cell(128, 0.8, 1, 1)]
    assert cell_of(cells, Pick(64, 0.8, 0)) is cells[1] and cell_of(cells, Pick(64, 1.0, 0)) is cells[0]
    found = cell_of(cells, Pick(64, 0.85, 0))
    assert [half.likeness for half in found.halves] == pytest.approx([0.5, 0.3])
    assert found.whole.a == pytest.approx(0.4 * 0.5) and found.whole.kept == pytest.approx(1.0)
    assert cell_of(cells, Pick(64, 0.4, 0)) is cells[2] and cell_of(cells, Pick(128, 1.0, 0)) is cells[3]


def test_each_way_chooses_from_the_recorded_figures() -> None:
    values = run_of(learned=(0.3, 0.5, 0.51, 0.505, 0.6))
    chosen = picks(values)
    assert chosen["evaluation"] == Pick(320, 1.0, 320) == chosen["last step at 1"]
    assert chosen["least held-out loss at 1"].step == 320
