from __future__ import annotations

import pytest
import torch
from torch import nn

from lib_trainer.config.optimization import OPTIMIZERS
from lib_trainer.config.recipe import TrainingConfig
from lib_trainer.errors import ConfigError, MissingPackage, UserError
from lib_trainer.memory.optimizer_state import optimizer_bytes
from lib_trainer.models import device, optimizers
from lib_trainer.models.device import available_optimizer, compute_dtype
from lib_trainer.models.optimizers import SOURCES, averages, canonical_name
from lib_trainer.training.optimizer import check_optimizer, make_optimizer
from lib_trainer.training.schedules import make_schedule

CPU = torch.device("cpu")


def only(config: TrainingConfig, weight: nn.Parameter) -> list[dict[str, object]]:
    return [{"params": [weight], "lr": config.learning_rate}]


def descend(config: TrainingConfig, steps: int = 200) -> float:
    """Distance from the goal after `steps`, from a distance of about 1."""
    torch.manual_seed(0)
    weight = nn.Parameter(torch.zeros(64, 64))
    goal = torch.randn(64, 64)
    made, _ = make_optimizer(config, only(config, weight), CPU)
    rate = make_schedule(config, made, steps)
    for _ in range(steps):
        loss = (weight - goal).square().mean()
        loss.backward()
        made.step()
        made.zero_grad()
        rate.step()
    return float(loss.detach())


# A rate of each with which it gets there; others get there with 0.05.
RATES = {"Prodigy": 1.0, "Lion": 0.02, "Lion8bit": 0.02, "Adan": 0.1, "AdamWScheduleFree": 0.2, "Muon": 0.2}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_descends(name: str) -> None:
    pytest.importorskip(SOURCES[name].module.partition(".")[0])
    assert descend(TrainingConfig(optimizer=name, learning_rate=RATES.get(name, 0.05), weight_decay=0.0)) < 0.15


def test_muon_turns_matrices_and_leaves_vectors_to_adamw() -> None:
    pytest.importorskip("pytorch_optimizer")
    # As the magnitudes of norms: sizes that an orthogonal update would keep apart.
    vector, matrix = nn.Parameter(torch.zeros(64)), nn.Parameter(torch.zeros(8, 8))
    config = TrainingConfig(optimizer="Muon", learning_rate=0.01, weight_decay=0.0)
    made, _ = make_optimizer(config, [{"params": [vector, matrix], "lr": 0.01}], CPU)
    vector.grad, matrix.grad = torch.linspace(0.1, 9, 64), torch.randn(8, 8, generator=torch.Generator().manual_seed(0))
    made.step()
    assert torch.allclose(vector.detach(), torch.full((64,), -0.01), atol=1e-5)
    sizes = torch.linalg.svdvals(matrix.detach())
    assert float(sizes.max() / sizes.min()) < 3
    assert [len(group["params"]) for group in made.param_groups] == [1, 1]


def test_options_reach_the_optimizer() -> None:
    config = TrainingConfig(optimizer="AdamW", optimizer_args="betas=0.8,0.95 weight_decay=0.3", weight_decay=0.1)
    made, _ = make_optimizer(config, only(config, nn.Parameter(torch.zeros(2))), CPU)
    assert (made.param_groups[0]["betas"], made.param_groups[0]["weight_decay"]) == ((0.8, 0.95), 0.3)
    assert made.param_groups[0]["lr"] == 1e-4


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("AdamW", "d_coef=2", "AdamW does not take d_coef; it takes betas, eps"),
        ("AdamW", "lr=1", "AdamW does not take lr"),
        ("AdamW", "betas=3", "AdamW does not take these"),
        ("AdamW", "betas=2,0.9", "AdamW does not take these"),
        ("Adafactor", "decouple=True", "it takes eps, clip_threshold"),
    ],
)
def test_what_an_optimizer_does_not_take_is_said_before_the_model_is_touched(
    name: str, arguments: str, said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        check_optimizer(TrainingConfig(optimizer=name, optimizer_args=arguments))
    assert said in caught.value.problems["optimizer_args"]


@pytest.mark.parametrize(("name", "other"), [("AdamW8bit", "AdamW"), ("PagedAdamW8bit", "AdamW")])
def test_8bit_optimizers_say_why_they_step_aside(monkeypatch: pytest.MonkeyPatch, name: str, other: str) -> None:
    monkeypatch.setattr(device, "find_spec", lambda name: None)
    config = TrainingConfig(optimizer=name)
    made, notice = make_optimizer(config, only(config, nn.Parameter(torch.zeros(2))), CPU)
    assert type(made).__name__ == other
    assert name in notice and "bitsandbytes" in notice and other in notice


def test_without_its_package_an_optimizer_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "find_spec", lambda name: None)
    monkeypatch.setattr(optimizers, "find_spec", lambda name: None)
    groups = [{"params": [nn.Parameter(torch.zeros(2))], "lr": 1.0}]
    for name, package in (("Prodigy", "prodigyopt"), ("CAME", "pytorch-optimizer"), ("Lion8bit", "pytorch-optimizer")):
        with pytest.raises(MissingPackage, match=package):
            make_optimizer(TrainingConfig(optimizer=name), groups, CPU)
    with pytest.raises(UserError, match="AdEMAMix8bit needs the package bitsandbytes"):
        make_optimizer(TrainingConfig(optimizer="AdEMAMix8bit"), groups, CPU)
    # What has a stand-in may start.
    check_optimizer(TrainingConfig(optimizer="AdamW8bit"))
    with pytest.raises(MissingPackage):
        check_optimizer(TrainingConfig(optimizer="CAME"))


@pytest.mark.parametrize("name", ["Tiger", "pytorch_optimizer.AdaBelief", "adopt", "ScheduleFreeRAdam", "NorMuon"])
def test_any_class_of_the_library_trains_by_its_name_and_its_state_is_measured(name: str) -> None:
    pytest.importorskip("pytorch_optimizer")
    config = TrainingConfig(optimizer=name, learning_rate=0.05, weight_decay=0.0, lr_scheduler="constant")
    check_optimizer(config)
    assert descend(config, 100) < 0.9
    weight = nn.Parameter(torch.zeros(16, 8))
    made, _ = make_optimizer(config, only(config, weight), CPU)
    assert type(made).__name__ == canonical_name(name)
    if averages(made):
        made.train()
    weight.grad = torch.ones_like(weight)
    made.step()
    kept = sum(value.nbytes for value in made.state[weight].values() if isinstance(value, torch.Tensor))
    assert optimizer_bytes(available_optimizer(name, CPU)[0], (16, 8)) == kept


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("Tigr", "", "'Tigr' is not an optimizer of pytorch-optimizer; near are Tiger"),
        ("__import__", "", "is not an optimizer"),
        ("Lookahead", "", "Lookahead wraps another optimizer or a whole model"),
        ("SAM", "", "SAM wraps another optimizer"),
        ("AdamMini", "", "AdamMini wraps another optimizer or a whole model"),
        ("LBFGS", "", "LBFGS needs a closure"),
        ("AliG", "", "AliG needs a closure"),
        ("SophiaH", "", "SophiaH needs gradients of gradients (create_graph)"),
        ("SOAP", "", "SOAP keeps what a resume state cannot hold"),
        ("MADGRAD", "", "MADGRAD keeps what a resume state cannot hold (k)"),
        ("LoRARite", "", "LoRARite cannot take a step on an adapter"),
        ("Tiger", "d_coef=2", "Tiger does not take d_coef; it takes beta"),
        ("Ranger21", "", "Ranger21 does not take these"),
    ],
)
def test_what_cannot_be_used_is_said_before_the_model_is_touched(name: str, arguments: str, said: str) -> None:
    pytest.importorskip("pytorch_optimizer")
    with pytest.raises(ConfigError) as caught:
        check_optimizer(TrainingConfig(optimizer=name, optimizer_args=arguments))
    assert said in next(iter(caught.value.problems.values()))


def test_names_in_any_case_and_with_a_package() -> None:
    names = ("adamw8bit", "pytorch_optimizer.CAME", "LION", "torch.optim.AdamW", "adamwschedulefree")
    assert [canonical_name(name) for name in names] == ["AdamW8bit", "CAME", "Lion", "AdamW", "AdamWScheduleFree"]


def test_a_cpu_computes_in_float32() -> None:
    assert {compute_dtype(name, CPU) for name in ("fp16", "bf16", "fp32")} == {torch.float32}
