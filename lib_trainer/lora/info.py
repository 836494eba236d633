"""What a host knows about a LoRA file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lib_trainer.models.families import Family


@dataclass(frozen=True)
class LoraInfo:
    """A LoRA file that the host knows.

    Attributes:
        name: NAME in `<lora:NAME:0.8>`.
        aliases: other names that the host takes for this file.
        family: the models it was made for; None where the file does not say.
        trigger_words: what calls it in a prompt, by its card or its metadata; "" where neither says.
        strength: what its card proposes; 0 where it proposes none.
        steps: optimizer steps it was trained for; 0 where the file does not say.
        problem: why no prompt can call it; "" when one can.
        two_way: strength −1 does the opposite of 1, as of a slider.
        trained_over: (name, strength) of the LoRAs that acted while it was trained, and stayed as they were.
    """

    name: str
    path: Path
    aliases: tuple[str, ...] = ()
    family: Family | None = None
    trigger_words: str = ""
    strength: float = 0.0
    steps: int = 0
    problem: str = ""
    two_way: bool = False
    trained_over: tuple[tuple[str, float], ...] = ()
