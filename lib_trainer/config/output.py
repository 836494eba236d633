"""Settings of what a run saves and draws on the way."""

from __future__ import annotations

from dataclasses import dataclass

from lib_trainer.config.fields import setting
from lib_trainer.config.groups import SAVING
from lib_trainer.config.training import PRECISIONS


@dataclass(frozen=True)
class OutputConfig:
    """What is saved."""

    output_name: str = setting(
        "", "Output name", "The file's name, and NAME in <lora:NAME:0.8>.", group=SAVING, basic=True
    )
    save_precision: str = setting(
        "fp16", "Save precision", "Number format of the file.", group=SAVING, choices=PRECISIONS
    )
    save_every_n_epochs: int = setting(
        0, "Save every N epochs", "Also saves NAME-000003 …; 0 is off.", group=SAVING, unit="epochs", low=0
    )
    save_every_n_steps: int = setting(
        0, "Save every N steps", "Also saves NAME-step00000200 …; 0 is off.",
        group=SAVING, common=True, unit="steps", low=0,
    )  # fmt: skip
    save_last_n_epochs: int = setting(
        0, "Save last N epochs", "Removes older copies saved by epoch; 0 keeps all.",
        group=SAVING, unit="copies", low=0,
    )  # fmt: skip
    save_last_n_steps: int = setting(
        0, "Save last N steps", "Removes copies older than this many steps; 0 keeps all.",
        group=SAVING, unit="steps", low=0,
    )  # fmt: skip
    sample_every_n_steps: int = setting(
        0, "Sample every N steps", "Draws test pictures during the run; 0 is off.",
        group=SAVING, common=True, unit="steps", low=0,
    )  # fmt: skip
    sample_every_n_epochs: int = setting(
        0, "Sample every N epochs", "Draws test pictures during the run; 0 is off.", group=SAVING, unit="epochs", low=0
    )
    sample_prompts: str = setting(
        "", "Sample prompts",
        "One a line; --n negative --w width --h height --d seed --s steps --l CFG may follow."
        " Empty uses the trigger word.",
        group=SAVING, common=True, lines=3,
    )  # fmt: skip
    resume_every_minutes: float = setting(
        5.0, "Save state every", "At most this much is lost in a crash; 0 saves no state.",
        group=SAVING, unit="min", low=0.0,
    )  # fmt: skip
    preferred_weight: float = setting(
        0.8, "Preferred weight", "Strength on the LoRA's card.", group=SAVING, common=True, low=-2.0, high=2.0
    )
    comment: str = setting("", "Training comment", "Saved in the file's metadata.", group=SAVING)
