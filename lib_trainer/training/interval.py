"""When something that repeats is due."""

from __future__ import annotations

from lib_trainer.dataset.sampler import Schedule
from lib_trainer.events import Step


def is_due(step: Step, schedule: Schedule, *, every_steps: int, every_epochs: int) -> bool:
    """Whether an interval ends with this step: by steps, or with the last step of an epoch. 0 turns one off."""
    # As kohya counts: the last step of an epoch, however many steps it has.
    ends_epoch = step.number % schedule.steps_per_epoch == 0
    by_epochs = bool(every_epochs) and ends_epoch and step.epoch % every_epochs == 0
    return by_epochs or (bool(every_steps) and step.number % every_steps == 0)
