from __future__ import annotations

import pytest
import torch
from torch import nn

from lib_trainer.config.recipe import TrainingConfig
from lib_trainer.errors import MissingPackage
from lib_trainer.models import device
from lib_trainer.models.device import compute_dtype
from lib_trainer.training import optimizer as room
from lib_trainer.training.optimizer import make_optimizer, make_schedule, parameter_groups

CPU = torch.device("cpu")


def descend(config: TrainingConfig, steps: int = 200) -> float:
    """Distance from the goal after `steps`, from a distance of about 1."""
    torch.manual_seed(0)
    weight = nn.Parameter(torch.zeros(64, 64))
    goal = torch.randn(64, 64)
    made, _ = make_optimizer(config, parameter_groups(config, [[weight]], []), CPU)
    rate = make_schedule(config, made, steps)
    for _ in range(steps):
        loss = (weight - goal).square().mean()
        loss.backward()
        made.step()
        made.zero_grad()
        rate.step()
    return float(loss.detach())


@pytest.mark.parametrize(
    ("name", "rate"), [("AdamW", 0.05), ("AdamW8bit", 0.05), ("Prodigy", 1.0), ("Adafactor", 0.05)]
)
def test_every_optimizer_descends(name: str, rate: float) -> None:
    if name == "Prodigy":
        pytest.importorskip("prodigyopt")
    assert descend(TrainingConfig(optimizer=name, learning_rate=rate, weight_decay=0.0)) < 0.15


def test_8bit_adamw_says_why_it_steps_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (room, device):
        monkeypatch.setattr(module, "find_spec", lambda name: None)
    config = TrainingConfig(optimizer="AdamW8bit")
    made, notice = make_optimizer(config, parameter_groups(config, [[nn.Parameter(torch.zeros(2))]], []), CPU)
    assert isinstance(made, torch.optim.AdamW)
    assert "bitsandbytes" in notice
    with pytest.raises(MissingPackage, match="prodigyopt"):
        make_optimizer(TrainingConfig(optimizer="Prodigy"), [{"params": [nn.Parameter(torch.zeros(2))]}], CPU)


@pytest.mark.parametrize("name", ["constant", "linear", "cosine", "cosine_with_restarts"])
def test_rates_rise_over_the_warm_up_and_follow_their_shape(name: str) -> None:
    config = TrainingConfig(lr_scheduler=name, lr_warmup=10.0, learning_rate=1.0, lr_scheduler_num_cycles=2)
    made, _ = make_optimizer(
        TrainingConfig(optimizer="AdamW", learning_rate=1.0),
        [{"params": [nn.Parameter(torch.zeros(2))], "lr": 1.0}],
        CPU,
    )
    schedule = make_schedule(config, made, 100)
    rates = []
    for _ in range(100):
        rates.append(made.param_groups[0]["lr"])
        made.step()
        schedule.step()
    assert rates[0] == 0.0
    assert rates[5] == pytest.approx(0.5)
    assert rates[10] == pytest.approx(1.0)
    expected_middle = {"constant": 1.0, "linear": 0.5, "cosine": 0.5, "cosine_with_restarts": 1.0}[name]
    assert rates[55] == pytest.approx(expected_middle, abs=0.02)


def test_the_text_encoder_has_its_own_rate() -> None:
    config = TrainingConfig(learning_rate=1e-4, text_encoder_lr=2e-5)
    groups = parameter_groups(config, [[nn.Parameter(torch.zeros(1))]], [[nn.Parameter(torch.zeros(1))]])
    assert [group["lr"] for group in groups] == [1e-4, 2e-5]


def test_a_cpu_computes_in_float32() -> None:
    assert {compute_dtype(name, CPU) for name in ("fp16", "bf16", "fp32")} == {torch.float32}
