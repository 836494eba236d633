"""What a run starts from besides the checkpoint: LoRAs, continued or frozen. The names are sd-scripts'."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib_trainer.config.fields import setting
from lib_trainer.config.groups import LEARNS


@dataclass(frozen=True)
class StartConfig:
    """LoRAs that a run continues, or trains over."""

    network_weights: str = setting(
        "", "LoRA network weights", "Continues this LoRA: its name, or the path of its file.", group=LEARNS
    )
    dim_from_weights: bool = setting(
        False, "DIM from weights", "Takes LoRA type, layers and ranks from that LoRA, not from the recipe.",
        group=LEARNS,
    )  # fmt: skip
    base_weights: str = setting(
        "", "Base weights", "LoRAs, separated by commas, that act during training and stay as they are.", group=LEARNS
    )
    base_weights_multiplier: str = setting(
        "", "Base weights multiplier", "Their strengths, separated by commas; 1 where none is given.", group=LEARNS
    )

    @property
    def base_loras(self) -> list[tuple[str, float]]:
        """(name or path, strength) of each frozen LoRA.

        Raises:
            ValueError: a strength is not a number, or there are more strengths than LoRAs; with a sentence's end.
        """
        names, given = parts_of(self.base_weights), parts_of(self.base_weights_multiplier)
        if len(given) > len(names):
            raise ValueError(f"{len(given)} strengths are given for {len(names)} LoRAs")
        try:
            strengths = [float(text) for text in given]
        except ValueError as error:
            raise ValueError(f"{', '.join(given)[:80]!r} is not a list of numbers") from error
        if any(not -10 <= strength <= 10 for strength in strengths):
            raise ValueError("a strength lies outside −10 to 10")
        return list(zip(names, strengths + [1.0] * (len(names) - len(strengths)), strict=True))


def parts_of(text: str) -> list[str]:
    """`"a, b"` -> `["a", "b"]`."""
    return [part.strip() for part in text.split(",") if part.strip()]


def without_folders(text: str) -> str:
    """The names of LoRAs without the folders of their paths, which are private."""
    return ", ".join(Path(part).stem if is_path(part) else part for part in parts_of(text))


def is_path(name: str) -> bool:
    """Whether it is the path of a file, not a name in the folder of LoRAs."""
    path = Path(name)
    return path.is_absolute() or ".." in path.parts or name.startswith("~")


def named_paths(values: Mapping[str, Any]) -> list[str]:
    """Paths of LoRA files that settings name; names in the folder of LoRAs are none."""
    return [part for name in FILE_FIELDS for part in parts_of(str(values.get(name) or "")) if is_path(part)]


# Settings that name LoRA files.
FILE_FIELDS = ("network_weights", "base_weights")
