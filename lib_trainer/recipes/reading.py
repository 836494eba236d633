"""What a recipe's source says, before it is checked, and how its values are shown to a person."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

_SHOWN_CHARACTERS, _SHOWN_NAMES = 60, 12


@dataclass(frozen=True)
class Reading:
    """What a description says.

    Attributes:
        values: our field -> value, as it stands there.
        notices: a sentence for everything that is not used, or means something else here.
        problems: our field -> why its value cannot be taken over.
    """

    values: dict[str, Any]
    notices: tuple[str, ...] = ()
    problems: dict[str, str] = field(default_factory=dict)


def is_off(value: Any) -> bool:
    """kohya's ways of saying no: 0, "0", "0.0", false, "", "None", null, an empty list."""
    return value is None or value is False or str(value).strip().lower() in ("", "0", "0.0", "false", "none", "[]")


def shown(value: Any) -> str:
    """A value of a file on one short printable line, whatever the file holds."""
    text = str(value)[: _SHOWN_CHARACTERS + 1]
    text = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"


def shown_names(names: Iterable[Any]) -> str:
    """Sorted names in one line; those beyond a dozen are counted."""
    ordered = sorted({shown(name) for name in names})
    more = len(ordered) - _SHOWN_NAMES
    return ", ".join(ordered[:_SHOWN_NAMES]) + (f" and {more} more" if more > 0 else "")
