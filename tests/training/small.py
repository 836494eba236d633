"""The least that the loop can train on, and a run over it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from lib_trainer.adapter.attach import Adapter, attached, new_adapter
from lib_trainer.config.recipe import AdapterConfig, Recipe
from lib_trainer.dataset.collate import Batch
from lib_trainer.dataset.sampler import Schedule
from lib_trainer.dataset.samples import Sample
from lib_trainer.dataset.scan import Scan
from lib_trainer.events import Step
from lib_trainer.models.base import Layer, SizeCond, TextCond
from lib_trainer.training.loop import Training, fit

PICTURES = 4
CONTEXT = torch.randn(77, 8, generator=torch.Generator().manual_seed(99))


class SmallModel:
    """A HostModel around any torch module that maps (x_t, t, context) -> prediction."""

    device = torch.device("cpu")
    prediction = "epsilon"
    alphas_cumprod = torch.linspace(0.999, 0.01, 1000)

    def __init__(self, unet: nn.Module, layers: list[Layer]) -> None:
        self.unet = unet.requires_grad_(False)
        self.layers = layers
        self.seen: list[Tensor] = []

    def predict(self, x_t: Tensor, t: Tensor, text: TextCond, sizes: SizeCond) -> Tensor:
        self.seen.append(x_t.detach().clone())
        return self.unet(x_t, t, text.context)

    def read_weight(self, layer: Layer, like: Tensor) -> tuple[Tensor, Tensor | None]:
        bias = layer.module.bias
        return layer.module.weight.to(like.dtype), None if bias is None else bias.to(like.dtype)


class InfiniteGradient(torch.autograd.Function):
    """Changes nothing forward; backward every number becomes infinite."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad * float("inf")


class OneConv(nn.Module):
    """A UNet of one convolution."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.conv = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor, context: Tensor) -> Tensor:
        return self.conv(x)


def one_layer_model() -> SmallModel:
    unet = OneConv()
    return SmallModel(unet, [Layer("lora_unet_conv", unet.conv, "conv2d", (4, 4, 3, 3), padding=(1, 1))])


def recipe_of(**training: object) -> Recipe:
    values = {
        "optimizer": "AdamW",
        "learning_rate": 1e-2,
        "max_train_steps": 12,
        "lr_scheduler": "constant",
        **training,
    }
    return Recipe(AdapterConfig(algo="locon", conv_dim=2)).with_values(values)


def schedule_of(recipe: Recipe) -> Schedule:
    scan = Scan(tuple(Sample(Path(f"{i}.png"), "word", 1, 64, 64, True) for i in range(PICTURES)), (), "word")
    return Schedule(scan, replace(recipe, dataset=replace(recipe.dataset, resolution_px=(64, 64), min_bucket_reso=64)))


def make_batch(draws) -> Batch:
    latents = [torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(draw.sample)) for draw in draws]
    text = TextCond(CONTEXT.expand(len(draws), -1, -1))
    return Batch(torch.stack(latents), SizeCond(torch.zeros(len(draws), 6)), tuple(d.caption for d in draws), text)


def train(recipe: Recipe, model: SmallModel | None = None) -> tuple[Adapter, list[Step], SmallModel]:
    model = model or one_layer_model()
    adapter = new_adapter(model.layers, recipe.adapter, recipe.training.seed)
    with attached(adapter, model.layers, model.read_weight):
        events = list(fit(Training(model, adapter, recipe, schedule_of(recipe), make_batch)))
    return adapter, [event for event in events if isinstance(event, Step)], model
