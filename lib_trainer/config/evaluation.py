"""The settings by which a run measures itself. Names are kohya's where kohya has the setting."""

from __future__ import annotations

from dataclasses import dataclass

from lib_trainer.config.fields import setting
from lib_trainer.config.groups import LENGTH, QUALITY

NONE_HELD_OUT = "none"


@dataclass(frozen=True)
class EvaluationConfig:
    """How a run measures what it has learned, when it stops, and what it preserves."""

    stop_when_learned: bool = setting(
        False, "Stop when learned", "Ends when more steps do not help, and saves the best step and strength.",
        group=LENGTH, common=True,
    )  # fmt: skip
    validate_every_n_steps: int = setting(
        0, "Validate every N steps",
        "0 takes under 5 % of the time if the run stops when learned or has a validation split, else it is off.",
        group=LENGTH, unit="steps", low=0,
    )  # fmt: skip
    validation_split: float = setting(
        0.0, "Validation split",
        "Share of the pictures held out of training; 0 takes one in eight, at most 4, and none of fewer than 10.",
        group=QUALITY, low=0.0, high=0.5,
    )  # fmt: skip
    held_out: str = setting(
        "", "Held-out pictures", "File names, separated by commas; none for none; empty leaves the choice to the seed.",
        group=QUALITY,
    )  # fmt: skip
    validation_seed: int = setting(
        0, "Validation seed", "Chooses the held-out pictures and their noise.", group=QUALITY, low=0, high=2**31
    )
    max_validation_steps: int = setting(
        0, "Max validation steps", "How many held-out pictures are measured; 0 measures 4.",
        group=QUALITY, unit="pictures", low=0,
    )  # fmt: skip
    prior_preservation: bool = setting(
        False, "Prior preservation", "Holds other prompts to what the checkpoint draws: less drift, more variety.",
        group=QUALITY,
    )  # fmt: skip
    prior_preservation_weight: float = setting(
        8.0, "Preservation weight", "Weight of the preservation loss.", group=QUALITY, low=0.0, high=1000.0
    )
    prior_preservation_every_n_steps: int = setting(
        4, "Preserve every N steps", "Only every so many steps take the time for it.",
        group=QUALITY, unit="steps", low=1,
    )  # fmt: skip
    prior_prompts: str = setting(
        "", "Preserved prompts", "One a line; empty takes common ones.", group=QUALITY, lines=3
    )

    @property
    def evaluates(self) -> bool:
        return self.stop_when_learned or self.validate_every_n_steps > 0 or self.validation_split > 0
