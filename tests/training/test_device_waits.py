"""How often a step waits for the device: counted by a stand-in for a GPU, on the CPU."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from lib_trainer.adapter.attach import attached, new_adapter
from lib_trainer.config.recipe import AdapterConfig, Recipe
from lib_trainer.dataset.cache_store import TextStore
from lib_trainer.events import Step
from lib_trainer.models.base import Layer
from lib_trainer.training import loop
from lib_trainer.training.denoiser import Denoiser
from lib_trainer.training.loop import Training, fit
from lib_trainer.training.preservation import Preservation, preserved_prompts
from tests.device_waits import GPU, DeviceWaits, counted_waits
from tests.evaluation.test_evaluation import AnyText
from tests.training.small import OneConv, SmallModel, make_batch, schedule_of

STEPS = 2


class Wide(OneConv):
    """Convolutions between which a factor has more than the 4096 elements that bitsandbytes keeps in 32 bits."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.Sequential(nn.Conv2d(4, 512, 1), nn.Conv2d(512, 512, 1), nn.Conv2d(512, 4, 1))

    def forward(self, x: torch.Tensor, t: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        return self.convs.to(x.dtype)(x)


class OnTheStandIn(SmallModel):
    device = GPU


def recipe_with(algo: str, **values: object) -> Recipe:
    usual = {"optimizer": "AdamW8bit", "learning_rate": 1e-2, "max_train_steps": STEPS, "lr_scheduler": "constant"}
    return Recipe(AdapterConfig(algo=algo, network_dim=8, conv_dim=8)).with_values(usual | values)


def wide_model() -> OnTheStandIn:
    unet = Wide()
    layers = [
        Layer(f"lora_unet_{number}", conv, "conv2d", tuple(conv.weight.shape)) for number, conv in enumerate(unet.convs)
    ]
    return OnTheStandIn(unet.to(GPU), layers)


def steps_of(recipe: Recipe, waits: DeviceWaits) -> Iterator[list[str]]:
    """What waited in each step."""
    model = wide_model()
    adapter = new_adapter(model.layers, recipe.adapter, 0)
    training = Training(model, adapter, recipe, schedule_of(recipe), make_batch)
    assert not training.notice
    if prompts := preserved_prompts(recipe):
        drawn = [torch.zeros(4, 8, 8) for _ in prompts]
        training.preservation = Preservation(Denoiser(training, TextStore(AnyText())), prompts, drawn, torch.zeros(6))
    waits.seen.clear()
    waits.launches.clear()
    with attached(adapter, model.layers, model.read_weight):
        for event in fit(training):
            if isinstance(event, Step):
                yield waits.seen[:]
                waits.seen.clear()


@pytest.mark.parametrize(
    ("algo", "values"),
    [
        ("loha", {}),
        ("loha", {"scale_weight_norms": 0.01, "ema_decay": 0.9, "max_grad_norm": 1e-3}),
        ("lokr", {"gradient_accumulation_steps": 2}),
        ("loha", {"prior_preservation": True, "prior_preservation_every_n_steps": 1}),
        ("lokr", {"rank_dropout": 0.5, "rank_dropout_scale": True}),
        ("locon", {"module_dropout": 0.5, "network_dropout": 0.5, "tlora_min_rank": 1, "loss_type": "huber"}),
        ("loha", {"optimizer": "Lion8bit"}),
        ("lokr", {"optimizer": "AdEMAMix8bit"}),
        ("lokr", {"optimizer": "AdamW"}),
    ],
)
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_step_waits_once_to_read_its_loss(
    algo: str, values: dict[str, object], fused: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    if fused and "prior_preservation" in values:
        pytest.skip("Its gradients are added to those of the pictures, which a fused backward pass does not keep.")
    if fused and values.get("optimizer") == "AdamW":
        pytest.skip("On a GPU torch's AdamW counts its steps there, on the stand-in it does not.")
    monkeypatch.setattr(loop, "compute_dtype", lambda *_: dtype)
    recipe = recipe_with(algo, **values, fused_backward_pass=fused)
    with counted_waits(monkeypatch) as waits:
        # In its first step bitsandbytes moves its quantile maps, once a run.
        _, *others = steps_of(recipe, waits)
        assert others == [["tolist"]] * (STEPS - 1)


@pytest.mark.parametrize(("fused", "launches"), [(False, 2), (True, 5)])
def test_bitsandbytes_is_launched_for_all_small_and_all_large_tensors_at_once(
    fused: bool, launches: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of states in 8 and in 32 bits; in a fused backward pass for each layer."""
    recipe = recipe_with("loha", max_train_steps=1, fused_backward_pass=fused)
    with counted_waits(monkeypatch) as waits:
        assert len(list(steps_of(recipe, waits))) == 1
        assert len([name for name in waits.launches if name.startswith("optimizer_update")]) == launches
