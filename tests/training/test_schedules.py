"""Learning rates over a run, against their formulas."""

from __future__ import annotations

from math import cos, pi
from typing import Any

import pytest
import torch
from torch import nn

from lib_trainer.config.optimization import SCHEDULERS
from lib_trainer.config.recipe import Recipe, TrainingConfig
from lib_trainer.errors import ConfigError
from lib_trainer.training.schedules import make_schedule


def rates(name: str, steps: int = 100, **settings: Any) -> list[float]:
    """The rate of every step, of 1."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(2))], lr=1.0)
    config = TrainingConfig(lr_scheduler=name, learning_rate=1.0, lr_scheduler_num_cycles=2, **settings)
    schedule, found = make_schedule(config, optimizer, steps), []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


@pytest.mark.parametrize("name", SCHEDULERS)
def test_rates_rise_over_the_warm_up_and_follow_their_shape(name: str) -> None:
    found = rates(name, lr_warmup=10.0)
    assert found[0] == 0.0
    assert found[5] == pytest.approx(0.5)
    assert found[10] == pytest.approx(1.0)
    expected_middle = {
        "constant": 1.0,
        "linear": 0.5,
        "cosine": 0.5,
        "cosine_with_restarts": 1.0,
        "polynomial": 0.5,
        "cosine_with_min_lr": 0.55,
        "warmup_stable_decay": 1.0,
        "rex": 0.5 / 0.75,
    }[name]
    assert found[55] == pytest.approx(expected_middle, abs=0.02)


def test_a_power_bends_the_polynomial() -> None:
    found = rates("polynomial", lr_scheduler_power=2.0)
    assert found[30] == pytest.approx(0.7**2, abs=1e-3)


def test_a_cosine_ends_at_its_share() -> None:
    found = rates("cosine_with_min_lr", lr_scheduler_args="min_lr_rate=0.25")
    assert found[40] == pytest.approx(0.25 + 0.75 * 0.5 * (1 + cos(pi * 0.4)))
    assert found[99] == pytest.approx(0.25, abs=1e-3)


@pytest.mark.parametrize("decay", ["0.3", "30"])
def test_stable_then_down(decay: str) -> None:
    found = rates("warmup_stable_decay", lr_scheduler_args=f"num_decay_steps={decay} min_lr_ratio=0.1")
    assert found[:70] == [1.0] * 70
    assert found[85] == pytest.approx(0.1 + 0.9 * 0.5 * (1 + cos(pi * 0.5)))
    assert found[99] == pytest.approx(0.1, abs=0.01)


def test_rex_is_its_papers() -> None:
    found = rates("rex")
    for step in (0, 25, 80):
        z = step / 100
        assert found[step] == pytest.approx((1 - z) / (0.5 + 0.5 * (1 - z)))


@pytest.mark.parametrize(
    ("schedule", "arguments", "said"),
    [
        ("cosine", "min_lr_rate=0.1", "cosine does not take min_lr_rate"),
        ("rex", "power=2", "rex does not take power; it takes min_lr_ratio"),
        ("rex", "min_lr_ratio=much", "not a number"),
        ("rex", "min_lr_ratio", "not like name=value"),
        ("rex", "'", "quotation"),
    ],
)
def test_options_that_a_schedule_does_not_take_are_said_at_their_field(
    schedule: str, arguments: str, said: str
) -> None:
    recipe = Recipe().with_values({"lr_scheduler": schedule, "lr_scheduler_args": arguments})
    with pytest.raises(ConfigError) as caught:
        recipe.check(needs_name=False)
    assert said in caught.value.problems["lr_scheduler_args"]
