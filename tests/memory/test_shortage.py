from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lib_trainer.config import Recipe
from lib_trainer.errors import UserError
from lib_trainer.memory.shortage import explained_shortage


def recipe_of(**training: object) -> Recipe:
    return replace(Recipe(), training=replace(Recipe().training, **training))


@pytest.mark.parametrize(
    "error",
    [torch.cuda.OutOfMemoryError("CUDA out of memory."), MemoryError(), RuntimeError("can't allocate memory: 9")],
)
def test_every_kind_of_shortage_is_explained(error: Exception) -> None:
    with pytest.raises(UserError, match="not enough") as caught, explained_shortage(Recipe()):
        raise error
    assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    ("training", "advice"),
    [
        ({"gradient_checkpointing": False}, "Save memory"),
        ({"train_batch_size": 4}, "batch from 4 to 1"),
        ({"optimizer": "AdamW"}, "AdamW8bit"),
        ({"text_encoder_lr": 1e-5}, "text encoder"),
        ({}, "768×768"),
    ],
)
def test_the_advice_is_what_this_recipe_can_still_save(training: dict, advice: str) -> None:
    with pytest.raises(UserError, match=advice), explained_shortage(recipe_of(**training)):
        raise MemoryError


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="shape"), explained_shortage(Recipe()):
        raise RuntimeError("shape mismatch")
