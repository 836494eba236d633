"""What a grid will show: every picture's request, decided before the first is drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from lib_trainer.errors import UserError
from lib_trainer.host.base import GenerateRequest
from lib_trainer.lora.tags import LoraRef, bare, with_lora

MAX_CELLS = 400


@dataclass(frozen=True)
class Cell:
    """One picture of a grid.

    Attributes:
        uses: what is varied, at the strengths of this cell, 0 included.
    """

    row: int
    column: int
    request: GenerateRequest
    uses: tuple[LoraRef, ...]


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


@dataclass(frozen=True)
class Varied:
    """A LoRA, and the names in a prompt that mean it."""

    name: str
    aliases: tuple[str, ...] = ()


def strength_grid(
    base: GenerateRequest,
    prompts: Sequence[str],
    seeds: Sequence[int],
    lora: Varied,
    strengths: Sequence[float],
    beside: Sequence[LoraRef] = (),
) -> GridSpec:
    """A row a prompt (and seed), a column a strength. `beside`: other LoRAs, the same in every picture."""

    for use in beside:
        _require_two(lora.name, use.name)

    def uses(_: None, strength: float) -> tuple[LoraRef, ...]:
        return (LoraRef(lora.name, strength), *beside)

    rows = [(_row_label(prompt, seed, seeds), prompt, seed, None) for prompt, seed in product(prompts, seeds)]
    beside_text = "".join(f" + {use.label}" for use in beside)
    columns = [(f"{lora.name} {strength:g}{beside_text}", strength) for strength in strengths]
    return _plan(f"Strengths of {lora.name}", base, rows, columns, uses, {lora.name: lora.aliases})


def checkpoint_grid(
    base: GenerateRequest,
    prompts: Sequence[str],
    seeds: Sequence[int],
    stages: Sequence[tuple[str, str]],
    strengths: Sequence[float],
) -> GridSpec:
    """A row a saved step of one run, a column a strength.

    Args:
        stages: (name, label), in the order of training; in the prompts any of the names stands for all.
    """

    def uses(name: str, strength: float) -> tuple[LoraRef, ...]:
        return (LoraRef(name, strength),)

    rows = [
        (label + _beside_label(prompts, seeds, prompt, seed), prompt, seed, name)
        for prompt, seed in product(prompts, seeds)
        for name, label in stages
    ]
    columns = [(f"strength {strength:g}", strength) for strength in strengths]
    names = [name for name, _ in stages]
    return _plan("Saved steps", base, rows, columns, uses, dict.fromkeys(names, names))


def combined_grid(
    base: GenerateRequest,
    prompts: Sequence[str],
    seeds: Sequence[int],
    first: tuple[Varied, Sequence[float]],
    second: tuple[Varied, Sequence[float]],
) -> GridSpec:
    """Two LoRAs: a row a strength of the first, a column a strength of the second."""
    (down, down_strengths), (across, across_strengths) = first, second
    _require_two(down.name, across.name)

    def uses(down_strength: float, strength: float) -> tuple[LoraRef, ...]:
        return LoraRef(down.name, down_strength), LoraRef(across.name, strength)

    rows = [
        (f"{down.name} {strength:g}{_beside_label(prompts, seeds, prompt, seed)}", prompt, seed, strength)
        for prompt, seed in product(prompts, seeds)
        for strength in down_strengths
    ]
    columns = [(f"{across.name} {strength:g}", strength) for strength in across_strengths]
    aliases = {down.name: down.aliases, across.name: across.aliases}
    return _plan(f"{down.name} × {across.name}", base, rows, columns, uses, aliases)


def lora_grid(
    base: GenerateRequest, prompts: Sequence[str], columns: Sequence[tuple[str, Sequence[LoraRef]]]
) -> GridSpec:
    """A row a prompt, a column (label, LoRAs): any choice of them."""
    rows = [(_row_label(prompt, base.seed, ()), prompt, base.seed, None) for prompt in prompts]
    return _plan("LoRAs", base, rows, columns, lambda _, uses: tuple(uses), {})


def _require_two(first: str, second: str) -> None:
    if first == second:
        raise UserError(f"{first} cannot be combined with itself.", "Choose another one beside it.")


def _plan(
    title: str,
    base: GenerateRequest,
    rows: Sequence[tuple[str, str, int, Any]],
    columns: Sequence[tuple[str, Any]],
    uses_of: Callable[..., tuple[LoraRef, ...]],
    aliases: dict[str, Iterable[str]],
) -> GridSpec:
    """Rows are (label, prompt, seed, value), columns (label, value); both values say which LoRAs a cell uses."""
    if not rows or not columns:
        raise UserError("There is nothing to draw.", "A grid needs a prompt and a strength.")
    if len(rows) * len(columns) > MAX_CELLS:
        raise UserError(
            f"{len(rows)} × {len(columns)} pictures are too many for one grid.", f"{MAX_CELLS} is the most."
        )
    cells = []
    for row, (_, prompt, seed, down) in enumerate(rows):
        for column, (_, across) in enumerate(columns):
            uses = uses_of(down, across)
            text = prompt
            for use in uses:
                text = with_lora(text, use, aliases.get(use.name, ()))
            cells.append(Cell(row, column, replace(base, prompt=text, seed=seed), uses))
    labels = tuple(label for label, *_ in rows), tuple(label for label, _ in columns)
    values = [value for _, value in columns]
    return GridSpec(title, *labels, tuple(cells), values.index(0) if 0 in values else None)


def _row_label(prompt: str, seed: int, seeds: Sequence[int]) -> str:
    # The strength in its tags is not what is drawn.
    text = bare(prompt) or prompt
    return f"{text} · seed {seed}" if len(seeds) > 1 else text


def _beside_label(prompts: Sequence[str], seeds: Sequence[int], prompt: str, seed: int) -> str:
    """What tells a row from those of other prompts and seeds; "" where there are none."""
    return f" · {_row_label(prompt, seed, seeds)}" if len(prompts) * len(seeds) > 1 else ""
