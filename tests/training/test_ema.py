"""The moving average of the adapter: its formula, its place in files and pictures, and a resume."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lib_trainer.config.recipe import Recipe
from lib_trainer.errors import ConfigError
from lib_trainer.memory.estimate import Savings, Work, predict
from lib_trainer.models.families import SD1
from lib_trainer.training.callbacks import Callbacks
from tests.training.small import recipe_of
from tests.training.test_resume_state import go_on, numbers, take, training_of

DECAY = 0.6


def test_the_average_follows_its_formula() -> None:
    training = training_of(recipe_of(ema_decay=DECAY))
    wanted = numbers(training)
    for taken in range(12):
        take(training, taken, steps=1)
        decay = min(DECAY, (1 + taken + 1) / (10 + taken + 1))
        wanted = [decay * old + (1 - decay) * new for old, new in zip(wanted, numbers(training), strict=True)]
    stepped = numbers(training)
    with training.averaged():
        for found, value in zip(numbers(training), wanted, strict=True):
            torch.testing.assert_close(found, value)
        assert not any(torch.equal(a, b) for a, b in zip(numbers(training), stepped, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(numbers(training), stepped, strict=True))


def test_the_stepped_weights_come_back_after_an_error_too() -> None:
    training = training_of(recipe_of(ema_decay=DECAY))
    take(training, steps=2)
    stepped = numbers(training)
    with pytest.raises(ZeroDivisionError), training.averaged():
        1 / 0  # noqa: B018
    assert all(torch.equal(a, b) for a, b in zip(numbers(training), stepped, strict=True))


def test_a_run_learns_the_same_with_an_average() -> None:
    plain, averaged = training_of(recipe_of()), training_of(recipe_of(ema_decay=DECAY))
    take(plain), take(averaged)
    assert all(torch.equal(a, b) for a, b in zip(numbers(plain), numbers(averaged), strict=True))


@pytest.mark.parametrize("saved", ["instead", "beside"])
def test_a_resumed_run_ends_with_the_same_average(tmp_path: Path, saved: str) -> None:
    recipe = recipe_of(ema_decay=DECAY, ema_saved=saved)
    whole = training_of(recipe)
    take(whole)
    second, _ = go_on(recipe, tmp_path / "state.safetensors", 5)
    for name, value in whole.average.tensors.items():
        assert torch.equal(value, second.average.tensors[name])


def test_the_average_is_the_file_or_lies_beside_it() -> None:
    for saved in ("instead", "beside"):
        training = training_of(recipe_of(ema_decay=DECAY, ema_saved=saved))
        last = take(training)[-1]
        stepped, average = numbers(training), [value.clone() for value in training.average.tensors.values()]
        files: dict[str, list[torch.Tensor]] = {}

        def note(name: str, *_: Any, files: dict = files, training: Any = training, **__: Any) -> list[Any]:
            files[name] = numbers(training)
            return []

        saving = SimpleNamespace(save_beside=note, save_final=lambda *a, **k: note("final"))
        saver = SimpleNamespace(training=training, save=lambda step: [])
        list(Callbacks(saving, saver, SimpleNamespace()).save_final(last.number, last.epoch, chosen=True))
        wanted = {"final": average} if saved == "instead" else {"ema": average, "final": stepped}
        assert files.keys() == wanted.keys()
        for name, tensors in wanted.items():
            assert all(torch.equal(a, b) for a, b in zip(files[name], tensors, strict=True))


def test_the_plan_knows_of_it_and_one_average_is_enough() -> None:
    recipe = Recipe()
    work = Work(SD1, SD1.shape, recipe, "AdamW", 512, 512, 2, torch.float16)
    averaged = replace(work, recipe=recipe.with_values({"ema_decay": 0.99}))
    savings = Savings(0, False, False, 0.0, "AdamW", 1)
    assert predict(averaged, savings).adapter == 2 * predict(work, savings).adapter
    with pytest.raises(ConfigError, match="averages the weights itself"):
        recipe.with_values({"ema_decay": 0.9, "optimizer": "AdamWScheduleFree"}).check(needs_name=False)
