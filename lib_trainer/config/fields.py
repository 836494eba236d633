"""Settings: dataclass fields with label, unit, range and help, and how their values are converted and checked."""

from __future__ import annotations

import unicodedata
from dataclasses import Field, field
from typing import Any

_QUOTED_CHARACTERS = 80


def setting(
    default: Any,
    label: str,
    help: str,
    *,
    group: str,
    unit: str = "",
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    others: bool = False,
    basic: bool = False,
    common: bool = False,
    lines: int = 1,
    adapters: tuple[str, ...] = (),
    families: tuple[str, ...] = (),
) -> Any:
    """A dataclass field with all that a form, a command line and the docs say of it.

    Args:
        group: key of `groups.GROUPS`.
        others: the choices are proposals, and any other text is taken; what it means is checked where it is used.
        basic: shown without opening "All settings". `common` settings come first in their group.
        adapters, families: the adapters (`algo`) and model families (`Family.key`) it applies to; () is all of them.
    """
    about = {"label": label, "help": help, "unit": unit, "low": low, "high": high, "choices": choices, "lines": lines}
    where = {"group": group, "basic": basic, "common": common, "adapters": adapters, "families": families}
    return field(default=default, metadata={**about, **where, "others": others})


def convert(value: Any, kind: Any) -> Any:
    """A value of the right type or as text, converted to `kind`: bool, int, float, str or a (width, height).

    Raises:
        TypeError, ValueError, OverflowError: when the value is of another kind.
    """
    if kind is bool:
        if isinstance(value, bool):
            return value
        text = str(value).strip().lower()
        if text in ("true", "1", "1.0", "yes", "on"):
            return True
        if text in ("false", "0", "0.0", "no", "off", ""):
            return False
        raise ValueError(value)
    if kind is int:
        number = float(value)
        if isinstance(value, bool) or number != int(number):
            raise ValueError(value)
        # A long whole number (a seed) would lose digits on the way through float.
        return int(value) if isinstance(value, (int, str)) and str(value).lstrip("+-").isdigit() else int(number)
    if kind is float:
        if isinstance(value, bool):
            raise ValueError(value)
        number = float(value)
        if number != number or number in (float("inf"), float("-inf")):
            raise ValueError(value)
        return number
    if kind is str:
        if not isinstance(value, str):
            raise TypeError(value)
        # Neither a file's name nor a file's text can hold these.
        if "\0" in value or any(unicodedata.category(letter) == "Cs" for letter in value):
            raise ValueError(value)
        return value.strip()
    parts = value.replace("x", ",").split(",") if isinstance(value, str) else value
    sides = [convert(parts, int)] if isinstance(parts, (int, float)) else [convert(part, int) for part in parts]
    width, height = sides * 2 if len(sides) == 1 else sides
    return (width, height)


def quoted(value: Any) -> str:
    """A value as it is shown in a sentence: short, whatever it is."""
    text = repr(value[: _QUOTED_CHARACTERS + 1] if isinstance(value, str) else value)
    return text if len(text) <= _QUOTED_CHARACTERS else f"{text[:_QUOTED_CHARACTERS]}…"


def describe(kind: Any) -> str:
    """The kind of value, for a person."""
    return {bool: "yes or no", int: "a whole number", float: "a number", str: "text"}.get(kind, "a size like 768,768")


def range_problem(value: Any, item: Field) -> str:
    """What is wrong with a value by its field's range and choices; "" if nothing is."""
    low, high, choices = (item.metadata[k] for k in ("low", "high", "choices"))
    unit = f" {item.metadata['unit']}" if item.metadata["unit"] else ""
    if choices and value not in choices and not item.metadata["others"]:
        return f"{quoted(value)} is not one of {', '.join(choices)}"
    if low is not None and value < low:
        return f"{value}{unit} is below the smallest allowed, {low}"
    if high is not None and value > high:
        return f"{value}{unit} is above the largest allowed, {high}"
    return ""
