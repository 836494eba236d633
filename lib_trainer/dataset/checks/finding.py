"""What a check says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lib_trainer.dataset.images import shown_name

# warning: usually costs quality. note: worth a look, often meant.
Severity = Literal["warning", "note"]
_NAMED = 4


@dataclass(frozen=True)
class Finding:
    """One sentence about some pictures of a folder.

    Attributes:
        kind: which check found it, like `blur`.
        pictures: the files it means, in the folder's order; () for the folder as a whole.
        sentence: for a person; plain text.
    """

    kind: str
    pictures: tuple[Path, ...]
    sentence: str
    severity: Severity = "warning"


def named(pictures: Sequence[Path]) -> str:
    """`a.png, b.png and 3 more`."""
    names = [shown_name(path) for path in pictures]
    if len(names) > _NAMED:
        return f"{', '.join(names[: _NAMED - 1])} and {len(names) - _NAMED + 1} more"
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else "".join(names)


def plural(count: int) -> str:
    """`1 picture`, `3 pictures`."""
    return f"{count} picture{'s' * (count != 1)}"
