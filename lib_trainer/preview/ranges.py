"""Strengths and seeds as people write them: lists and ranges."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation

from lib_trainer.errors import UserError

DEFAULT_STRENGTHS = (0.0, 0.5, 0.7, 0.85, 1.0)
# Of a slider or a difference, whose −1 is the opposite of 1.
TWO_WAY_STRENGTHS = (-2.0, -1.0, 0.0, 1.0, 2.0)
# Beyond this every picture is noise; what is meant is most likely 0.8 written as 8.
MAX_STRENGTH = 5
MAX_VALUES = 50
_SEPARATORS = re.compile(r"[\s,;·|]+")


def show_strengths(values: tuple[float, ...]) -> str:
    """`0 · 0.5 · 0.7`."""
    return " · ".join(f"{value:g}" for value in values)


def usual_strengths(*, two_way: bool) -> tuple[float, ...]:
    """What a grid shows where nobody says otherwise."""
    return TWO_WAY_STRENGTHS if two_way else DEFAULT_STRENGTHS


def read_strengths(text: str) -> tuple[float, ...]:
    """`0 · 0.5 · 1`, `0, 0.5, 1` or ranges like `0:1:0.25`, end included; each value once, in the order written.

    Raises:
        UserError: for text that is not a number, a range that never ends, or a strength beyond ±5.
    """
    values = [value for part in _parts(text) for value in _range(part)]
    if not values:
        raise UserError("There are no strengths.", "Write them like 0 · 0.5 · 1, or as a range: 0:1:0.25.")
    wild = next((value for value in values if abs(value) > MAX_STRENGTH), None)
    if wild is not None:
        raise UserError(
            f"{wild:g} is too strong: every picture would be noise.",
            f"Stay between -{MAX_STRENGTH} and {MAX_STRENGTH}.",
        )
    if len(values) > MAX_VALUES:
        raise UserError(f"{len(values)} strengths are too many for one grid.", f"Take {MAX_VALUES} at most.")
    # A strength that is written twice would be drawn twice.
    return tuple(dict.fromkeys(values))


def read_seeds(text: str) -> tuple[int, ...]:
    """Whole numbers from 0; a row of pictures is drawn for each.

    Raises:
        UserError: for anything else.
    """
    parts = _parts(text)
    wrong = next((part for part in parts if not re.fullmatch(r"\d{1,18}", part)), None)
    if wrong is not None or not parts:
        raise UserError(f"{wrong or 'Nothing'} is not a seed.", "Write whole numbers from 0, like 1, 2, 3.")
    if len(parts) > MAX_VALUES:
        raise UserError(f"{len(parts)} seeds are too many for one grid.", f"Take {MAX_VALUES} at most.")
    return tuple(dict.fromkeys(int(part) for part in parts))


def _parts(text: str) -> list[str]:
    return [part for part in _SEPARATORS.split(text.strip()) if part]


def _range(part: str) -> list[float]:
    """One number, or `start:stop` and `start:stop:step` in steps of 0.25 unless said otherwise."""
    limits = [_decimal(piece, part) for piece in part.split(":")]
    if len(limits) == 1:
        return [float(limits[0])]
    if len(limits) > 3:
        raise UserError(f"{part!r} is not a range.", "Write it as start:stop:step, like 0:1:0.25.")
    start, stop, step = (*limits, Decimal("0.25"))[:3]
    try:
        count = (stop - start) / step if step else Decimal(-1)
    except ArithmeticError:
        # Beyond what decimals can count, like 0:1:1e-999999.
        count = Decimal("Infinity")
    # Before they are listed: there may be thousands of millions.
    if count > MAX_VALUES:
        raise UserError(f"{part!r} has too many strengths.", f"Take {MAX_VALUES} at most.")
    if count < 0:
        raise UserError(f"{part!r} never gets from {start} to {stop}.", "Write it as start:stop:step, like 0:1:0.25.")
    # Counted in decimals: in binary, 0.1 · 3 is not 0.3.
    return [float(start + step * index) for index in range(int(count) + 1)]


def _decimal(piece: str, part: str) -> Decimal:
    try:
        value = Decimal(piece)
    except InvalidOperation as error:
        raise UserError(f"{part!r} is not a strength.", "Write numbers like 0.8, or a range like 0:1:0.25.") from error
    if not value.is_finite():
        raise UserError(f"{part!r} is not a strength.", "Write numbers like 0.8, or a range like 0:1:0.25.")
    return value
