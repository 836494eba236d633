"""Names of optimizers and schedules, and the options of schedules, which `lr_scheduler_args` may name."""

from __future__ import annotations

import math

from lib_trainer.config.arguments import parse_arguments

OPTIMIZERS = (
    *("AdamW", "AdamW8bit", "PagedAdamW8bit", "Prodigy", "Adafactor", "Lion", "Lion8bit", "CAME", "Adan"),
    *("StableAdamW", "AdamWScheduleFree", "AdEMAMix8bit", "Muon"),
)


def needs_all_gradients(optimizer: str) -> bool:
    """Whether it computes its rate from all gradients at once."""
    return optimizer.rpartition(".")[2].lower().startswith(("prodigy", "dadapt"))


def averages_weights(optimizer: str) -> bool:
    """Whether it is Schedule-Free, and averages the weights itself."""
    return "schedulefree" in optimizer.lower()


SCHEDULERS = (
    *("constant", "cosine", "cosine_with_restarts", "linear", "polynomial", "cosine_with_min_lr"),
    *("warmup_stable_decay", "rex"),
)
# Schedules that take options, with their defaults. The names are transformers'.
SCHEDULE_OPTIONS: dict[str, dict[str, float]] = {
    "cosine_with_min_lr": {"min_lr_rate": 0.1},
    "warmup_stable_decay": {"num_decay_steps": 0.2, "min_lr_ratio": 0.0},
    "polynomial": {"lr_end": 1e-7},
    "rex": {"min_lr_ratio": 0.0},
}


def schedule_options(schedule: str, arguments: str) -> dict[str, float]:
    """The options of a schedule, those that are given as text on top.

    Raises:
        ValueError: it does not take one, or not that value; with the end of a sentence.
    """
    known, given = SCHEDULE_OPTIONS.get(schedule, {}), parse_arguments(arguments)
    for name, value in given.items():
        if name not in known:
            takes = f"; it takes {', '.join(known)}" if known else ""
            raise ValueError(f"{schedule} does not take {name}{takes}")
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
            raise ValueError(f"{name} = {str(value)[:60]!r} is not a number from 0")
    return {**known, **given}
