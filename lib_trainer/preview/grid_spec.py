"""What a grid will show: every picture's request, decided before the first is drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import product
from typing import Any

from lib_trainer.errors import UserError
from lib_trainer.host.base import GenerateRequest
from lib_trainer.lora.tags import LoraRef, bare, with_lora

# A typing error in a range should not draw for days.
MAX_CELLS = 400


@dataclass(frozen=True)
class Cell:
    """One picture of a grid.

    Attributes:
        loras: what the grid compares, at the strengths of this cell, 0 included.
    """

    row: int
    column: int
    request: GenerateRequest
    loras: tuple[LoraRef, ...]


@dataclass(frozen=True)
class GridSpec:
    """Cells in the order in which they are drawn: row by row.

    Attributes:
        title: what is compared, for a person.
        baseline: the column of strength 0, which the others of a row are compared with; None without one.
    """

    title: str
    row_labels: tuple[str, ...]
    column_labels: tuple[str, ...]
    cells: tuple[Cell, ...]
    baseline: int | None = None


# (label, prompt, seed, LoRAs of the row); (label, strength or LoRAs of the column).
_Row = tuple[str, str, int, Any]
_Column = tuple[str, Any]


def strength_grid(
    base: GenerateRequest,
    prompts: Sequence[str],
    seeds: Sequence[int],
    lora: LoraRef,
    strengths: Sequence[float],
    beside: Sequence[LoraRef] = (),
) -> GridSpec:
    """A row a prompt (and seed), a column a strength. `beside`: other LoRAs, the same in every picture."""
    for other in beside:
        _require_two(lora.name, other.name)
    rows = [(_row_label(prompt, seed, seeds), prompt, seed, None) for prompt, seed in product(prompts, seeds)]
    beside_text = "".join(f" + {other.label}" for other in beside)
    columns = [(f"{lora.at(strength).label}{beside_text}", strength) for strength in strengths]
    return _grid(f"Strengths of {lora.name}", base, rows, columns, lambda _, strength: (lora.at(strength), *beside))


def checkpoint_grid(
    base: GenerateRequest,
    prompts: Sequence[str],
    seeds: Sequence[int],
    saved_steps: Sequence[tuple[str, str]],
    strengths: Sequence[float],
) -> GridSpec:
    """A row a saved step of one run, a column a strength.

    Args:
        saved_steps: (name, label), in the order of training; in the prompts any of the names means all of them.
    """
    names = tuple(name for name, _ in saved_steps)
    rows = [
        (label + _beside_label(prompts, seeds, prompt, seed), prompt, seed, LoraRef(name, aliases=names))
        for prompt, seed in product(prompts, seeds)
        for name, label in saved_steps
    ]
    columns = [(f"strength {strength:g}", strength) for strength in strengths]
    return _grid("Saved steps", base, rows, columns, lambda saved, strength: (saved.at(strength),))


def combined_grid(
    base: GenerateRequest,
    prompts: Sequence[str],
    seeds: Sequence[int],
    first: tuple[LoraRef, Sequence[float]],
    second: tuple[LoraRef, Sequence[float]],
) -> GridSpec:
    """Two LoRAs: a row a strength of the first, a column a strength of the second."""
    (down, down_strengths), (across, across_strengths) = first, second
    _require_two(down.name, across.name)
    rows = [
        (down.at(strength).label + _beside_label(prompts, seeds, prompt, seed), prompt, seed, strength)
        for prompt, seed in product(prompts, seeds)
        for strength in down_strengths
    ]
    columns = [(across.at(strength).label, strength) for strength in across_strengths]
    title = f"{down.name} × {across.name}"
    return _grid(title, base, rows, columns, lambda row, column: (down.at(row), across.at(column)))


def lora_grid(
    base: GenerateRequest, prompts: Sequence[str], columns: Sequence[tuple[str, Sequence[LoraRef]]]
) -> GridSpec:
    """A row a prompt, a column (label, LoRAs): any choice of them."""
    rows = [(_row_label(prompt, base.seed, ()), prompt, base.seed, None) for prompt in prompts]
    return _grid("LoRAs", base, rows, columns, lambda _, loras: tuple(loras))


def _require_two(first: str, second: str) -> None:
    if first == second:
        raise UserError(f"{first} cannot be combined with itself.", "Choose another one beside it.")


def _grid(
    title: str,
    base: GenerateRequest,
    rows: Sequence[_Row],
    columns: Sequence[_Column],
    loras_of: Callable[[Any, Any], tuple[LoraRef, ...]],
) -> GridSpec:
    """The cells of every row and column. `loras_of`: (value of the row, value of the column) -> LoRAs of the cell."""
    if not rows or not columns:
        raise UserError("There is nothing to draw.", "A grid needs a prompt and a strength.")
    if len(rows) * len(columns) > MAX_CELLS:
        raise UserError(
            f"{len(rows)} × {len(columns)} pictures are too many for one grid.", f"{MAX_CELLS} is the most."
        )
    cells = []
    for row, (_, prompt, seed, row_value) in enumerate(rows):
        for column, (_, column_value) in enumerate(columns):
            loras = loras_of(row_value, column_value)
            text = reduce(with_lora, loras, prompt)
            cells.append(Cell(row, column, replace(base, prompt=text, seed=seed), loras))
    labels = tuple(label for label, *_ in rows), tuple(label for label, _ in columns)
    # The column at strength 0 is what the others are compared with.
    values = [value for _, value in columns]
    return GridSpec(title, *labels, tuple(cells), values.index(0) if 0 in values else None)


def _row_label(prompt: str, seed: int, seeds: Sequence[int]) -> str:
    # The strength in the prompt's own tags is not the one that is drawn.
    text = bare(prompt) or prompt
    return f"{text} · seed {seed}" if len(seeds) > 1 else text


def _beside_label(prompts: Sequence[str], seeds: Sequence[int], prompt: str, seed: int) -> str:
    """What tells a row from those of other prompts and seeds; "" where there are none."""
    return f" · {_row_label(prompt, seed, seeds)}" if len(prompts) * len(seeds) > 1 else ""
