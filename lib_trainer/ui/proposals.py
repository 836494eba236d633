"""What the page has filled in by itself: it follows the folder, and what a person typed stays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

# What names a run: a recipe may bring it along, and the folder proposes all but itself.
NAMED = ("train_data_dir", "trigger_word", "output_name")


class Proposed(NamedTuple):
    """The last values that the page put into its inputs; "" where it put none.

    Attributes:
        kind: of the pictures, as the page shows it.
        prompt: of step 4.
    """

    train_data_dir: str = ""
    trigger_word: str = ""
    output_name: str = ""
    prompt: str = ""
    kind: str = ""

    def opened(self, entered: Mapping[str, Any]) -> dict[str, Any]:
        """The inputs, with a trigger word and a name that the page proposed left empty: the folder says them anew."""
        open_names = [name for name in ("trigger_word", "output_name") if entered[name] == getattr(self, name)]
        return {**entered, **dict.fromkeys(open_names, "")}

    def is_typed(self, name: str, value: str) -> bool:
        """Whether a person typed this value over what the page had put there."""
        return value not in ("", getattr(self, name))


@dataclass(frozen=True)
class Typed:
    """What a person has chosen and typed beside the settings, in the order in which every event sends it."""

    kind: str
    prompt: str
    proposed: Proposed


def existing_adapter(lora_dir: Path, name: str) -> Path | None:
    """The adapter file that a run of this name would replace."""
    try:
        path = lora_dir / f"{name}.safetensors"
        # A name that is half typed may hold anything.
        return path if name and path.parent == lora_dir and path.is_file() else None
    except (OSError, ValueError):
        return None


def tell_existing(path: Path) -> str:
    return f"{path.name} exists: Train asks first."
