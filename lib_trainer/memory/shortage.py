"""Running out of memory, said so that a person can do something about it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from lib_trainer.config import Recipe
from lib_trainer.errors import UserError

# What torch says on a CPU and on devices without an exception of their own.
_WORDS = ("out of memory", "can't allocate memory", "not enough memory")


def is_shortage(error: BaseException) -> bool:
    if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _WORDS)


@contextmanager
def explained_shortage(recipe: Recipe) -> Iterator[None]:
    """Turns running out of memory into a UserError that names what to lower; other errors pass."""
    try:
        yield
    except Exception as error:
        if not is_shortage(error):
            raise
        raise UserError("The memory of the graphics card is not enough for this recipe.", _advice(recipe)) from error


def _advice(recipe: Recipe) -> str:
    """What would save most, the least loss of quality first."""
    training = recipe.training
    if not training.gradient_checkpointing:
        return "Turn “Save memory” on."
    if training.train_batch_size > 1:
        return (
            f"Lower the batch from {training.train_batch_size} to 1, and accumulate {training.train_batch_size} passes."
        )
    if training.optimizer in ("AdamW", "Prodigy"):
        return "Choose the optimizer AdamW8bit, which keeps a quarter of the state."
    if training.text_encoder_lr > 0:
        return "Set the text encoder's rate to 0."
    width, height = recipe.dataset.resolution_px
    return f"Lower the size from {width}×{height} px, or the rank from {recipe.adapter.network_dim}."
