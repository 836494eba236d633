"""What share of the best cell's score each way to choose gets, from the recorded figures of a run.

Two shares are told. The plain one compares with the cell that is best by all seeds, which is partly the luckiest. The
cross-fitted one lets one half of the seeds name the best cell, scores it and the pick by the other half, and takes the
mean of both directions: no cell can win by its own luck.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.learning.cells import Cell, Score
from lib_trainer.evaluation.choice import Choice
from lib_trainer.evaluation.evaluation import figures_of
from lib_trainer.evaluation.verdict import Pictures, judge
from lib_trainer.events import Evaluated

SCORES = ("A", "B")
_SCORE: dict[str, Callable[[Score], float]] = {"A": lambda score: score.a, "B": lambda score: score.b}
# Too few pictures to hold some out, and captions without the trigger word, by kind.
_PICTURES = {"few": Pictures("word", few=True), "untold": Pictures("word", named=False)}


@dataclass(frozen=True)
class Pick:
    """A step and strength, and after how many steps they were chosen."""

    step: int
    strength: float
    steps: int


def evaluations_of(values: dict[str, Any]) -> list[Evaluated]:
    return [Evaluated.from_values(item) for item in values["evaluations"]]


def cells_of(values: dict[str, Any]) -> list[Cell]:
    return [Cell.from_values(cell) for cell in values["cells"]]


def picks(values: dict[str, Any]) -> dict[str, Pick]:
    """Way to choose -> what it chooses, by the constants of today from the figures that were recorded."""
    found = evaluations_of(values)
    last = found[-1].step
    whole = _followed(found)
    by_loss = max(found, key=lambda item: item.learned)
    return {
        "evaluation": Pick(whole.best_step, whole.best_strength, last),
        "least held-out loss at 1": Pick(by_loss.step, 1.0, last),
        "last step at 1": Pick(last, 1.0, last),
    }


def verdict_of(values: dict[str, Any]) -> str:
    """What the run is told after its last step, by the limits of today."""
    found = evaluations_of(values)
    pictures = _PICTURES.get(values["kind"], Pictures("word"))
    return judge(figures_of(found[-1]), _followed(found), pictures)[0]


def shares(values: dict[str, Any], pick: Pick) -> dict[str, tuple[float, float]]:
    """A and B -> (the plain share of the best cell's score that the pick gets, the cross-fitted one)."""
    cells = cells_of(values)
    chosen = cell_of(cells, pick)
    return {name: (_plain(cells, chosen, name), _cross_fitted(cells, chosen, name)) for name in SCORES}


def cell_of(cells: Sequence[Cell], pick: Pick) -> Cell:
    """The cell of this step and strength, between the two that are drawn next to it; the outermost beyond them."""
    there = [cell for cell in cells if cell.step == pick.step]
    below = max((cell for cell in there if cell.strength <= pick.strength), key=_strength, default=None)
    above = min((cell for cell in there if cell.strength >= pick.strength), key=_strength, default=None)
    if below is None or above is None or below is above:
        return below or above or min(there, key=_strength)
    share = (pick.strength - below.strength) / (above.strength - below.strength)
    first, second = (one.mixed(other, share) for one, other in zip(below.halves, above.halves, strict=True))
    return Cell(pick.step, pick.strength, (first, second))


def _strength(cell: Cell) -> float:
    return cell.strength


def _followed(found: Sequence[Evaluated]) -> Choice:
    choice = Choice()
    for item in found:
        choice.take(figures_of(item))
    return choice


def _plain(cells: Sequence[Cell], chosen: Cell, name: str) -> float:
    score = _SCORE[name]
    return score(chosen.whole) / max(score(cell.whole) for cell in cells)


def _cross_fitted(cells: Sequence[Cell], chosen: Cell, name: str) -> float:
    score, found = _SCORE[name], []
    for naming, scoring in ((0, 1), (1, 0)):
        best = max(cells, key=lambda cell: score(cell.halves[naming]))
        found.append(score(chosen.halves[scoring]) / max(score(best.halves[scoring]), 1e-9))
    return sum(found) / len(found)
