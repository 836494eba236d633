"""A Schedule-Free optimizer steps from other weights than those it stands for, which files and pictures get."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lib_trainer.events import Command, Step
from lib_trainer.training.callbacks import Callbacks
from lib_trainer.training.loop import Training
from tests.training.small import recipe_of
from tests.training.test_resume_state import numbers, take, training_of

pytest.importorskip("pytorch_optimizer")
RECIPE = recipe_of(optimizer="AdamWScheduleFree", learning_rate=0.05)


def same(left: list[torch.Tensor], right: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def averages_of(training: Training) -> list[torch.Tensor]:
    with training.averaged():
        return numbers(training)


def test_the_weights_of_a_step_come_back_exactly() -> None:
    training = training_of(RECIPE)
    take(training, steps=4)
    stepped = numbers(training)
    assert not same(averages_of(training), stepped)
    assert same(numbers(training), stepped)


def test_a_run_does_not_depend_on_how_often_it_is_looked_at() -> None:
    whole, looked_at = training_of(RECIPE), training_of(RECIPE)
    take(whole)
    for taken in range(0, 12, 3):
        take(looked_at, taken, steps=3)
        averages_of(looked_at)
    assert same(numbers(whole), numbers(looked_at))


def test_other_optimizers_have_one_kind_of_weights() -> None:
    training = training_of(recipe_of())
    take(training, steps=2)
    assert same(averages_of(training), numbers(training))


def test_copies_pictures_measures_and_the_final_file_are_of_the_average() -> None:
    training = training_of(RECIPE)
    last = take(training, steps=4)[-1]
    expected, stepped, seen = averages_of(training), numbers(training), {}

    def note(name: str) -> Any:
        def noted(*_: Any, **__: Any) -> Any:
            seen[name] = numbers(training)
            return iter(())

        return noted

    saving = SimpleNamespace(
        is_due=lambda step: True,
        save_checkpoint=note("copy"),
        save_final=note("save"),
        schedule=training.schedule,
        recipe=training.recipe,
    )
    sampling = SimpleNamespace(is_due=lambda step: True, draw=note("sample"))
    resume_saver = SimpleNamespace(is_due=lambda: True, save=note("state"), training=training)
    evaluating = SimpleNamespace(
        is_due=lambda step: True, evaluate=note("evaluate"), verdict=lambda: None, chooses=False, ended=False
    )
    callbacks = Callbacks(saving, resume_saver, sampling, evaluating)
    step = Step(4, 12, 1, 0.1, 0.1, 1.0, 0)
    assert step.number == last.number
    list(callbacks.after(step, Command.SAMPLE))
    assert same(seen["state"], stepped)  # a resume goes on from these
    assert same(numbers(training), stepped)
    list(callbacks.save_final(4, 1, chosen=False))
    for name in ("copy", "sample", "evaluate", "save"):
        assert same(seen[name], expected), name
    assert same(numbers(training), expected)
