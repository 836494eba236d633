from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lib_trainer.adapter.attach import Adapter, attached, new_adapter
from lib_trainer.config import AdapterConfig, Recipe, TrainingConfig
from lib_trainer.dataset.batches import Batch, Schedule
from lib_trainer.dataset.scan import Sample, Scan
from lib_trainer.events import Notice, Step
from lib_trainer.host.base import Layer, SizeCond, TextCond
from lib_trainer.training import loop
from lib_trainer.training.loop import Diverged, Training, fit

PICTURES = 4


class OneLayerModel:
    """The least that the loop trains on: a UNet of one convolution."""

    device = torch.device("cpu")
    prediction = "epsilon"
    alphas_cumprod = torch.linspace(0.999, 0.01, 1000)

    def __init__(self) -> None:
        torch.manual_seed(1)
        self.unet = nn.Conv2d(4, 4, 3, padding=1)
        self.seen: list[Tensor] = []

    def predict(self, x_t: Tensor, t: Tensor, text: TextCond, sizes: SizeCond) -> Tensor:
        self.seen.append(x_t.detach().clone())
        return self.unet(x_t)

    def layers(self) -> list[Layer]:
        return [Layer("lora_unet_conv", self.unet, "conv2d", (4, 4, 3, 3), padding=(1, 1))]

    def read_weight(self, layer: Layer, like: Tensor) -> tuple[Tensor, Tensor]:
        return self.unet.weight.detach(), self.unet.bias.detach()


def recipe_of(**training: object) -> Recipe:
    values = {
        "optimizer": "AdamW",
        "learning_rate": 1e-2,
        "max_train_steps": 12,
        "lr_scheduler": "constant",
        **training,
    }
    return Recipe(AdapterConfig(algo="locon", conv_dim=2), training=TrainingConfig(**values))


def latents_of(sample: int) -> Tensor:
    return torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(sample))


def train(recipe: Recipe, model: OneLayerModel | None = None) -> tuple[Adapter, list[Step], OneLayerModel]:
    model = model or OneLayerModel()
    scan = Scan(tuple(Sample(Path(f"{i}.png"), "word", 1, 64, 64, True) for i in range(PICTURES)), (), "word")
    recipe = replace(recipe, dataset=replace(recipe.dataset, resolution_px=(64, 64), min_bucket_reso=64))
    text = TextCond(torch.zeros(77, 8))

    def make_batch(draws) -> Batch:
        latents = torch.stack([latents_of(draw.sample) for draw in draws])
        context = text.context.expand(len(draws), -1, -1)
        return Batch(latents, SizeCond(torch.zeros(len(draws), 6)), tuple(d.caption for d in draws), TextCond(context))

    layers = model.layers()
    adapter = new_adapter(layers, recipe.adapter, recipe.training.seed)
    with attached(adapter, layers, model.read_weight):
        events = list(fit(Training(model, adapter, recipe, Schedule(scan, recipe), make_batch)))
    return adapter, [event for event in events if isinstance(event, Step)], model


def test_steps_are_numbered_and_the_loss_falls() -> None:
    _, steps, _ = train(recipe_of(max_train_steps=150))
    assert [step.number for step in steps] == list(range(1, 151))
    assert {step.total for step in steps} == {150}
    assert [step.epoch for step in steps[:9]] == [1, 1, 1, 1, 2, 2, 2, 2, 3]
    assert sum(step.loss for step in steps[-30:]) < 0.8 * sum(step.loss for step in steps[:30])


def test_the_same_seed_gives_the_same_weights_and_another_gives_others() -> None:
    one, two, other = (train(recipe_of(seed=seed))[0] for seed in (3, 3, 4))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_accumulated_passes_add_up_to_the_mean_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[list[Tensor]] = []

    def record(training: Training, number: int) -> None:
        taken.append([p.grad.clone() for p in training.adapter.parameters()])
        training.optimizer.zero_grad()

    monkeypatch.setattr(loop, "_take_step", record)
    train(recipe_of(max_train_steps=4))
    single, taken[:] = taken[:], []
    _, steps, _ = train(recipe_of(max_train_steps=1, gradient_accumulation_steps=4))
    assert len(steps) == len(taken) == 1
    for i, accumulated in enumerate(taken[0]):
        mean = torch.stack([gradients[i] for gradients in single]).mean(0)
        torch.testing.assert_close(accumulated, mean, rtol=1e-5, atol=1e-7)
        assert float(mean.abs().max()) > 0 or i > 0


def test_the_last_step_of_an_epoch_takes_what_is_left() -> None:
    _, steps, model = train(recipe_of(max_train_steps=0, epoch=2, gradient_accumulation_steps=3))
    assert [step.epoch for step in steps] == [1, 1, 2, 2]
    assert len(model.seen) == 2 * PICTURES


def test_a_loss_that_is_no_number_stops_before_the_weights_are_spoiled() -> None:
    model = OneLayerModel()
    whole = model.predict

    def break_down(x_t: Tensor, t: Tensor, text: TextCond, sizes: SizeCond) -> Tensor:
        return whole(x_t, t, text, sizes) * (float("nan") if len(model.seen) == 6 else 1.0)

    model.predict = break_down
    layers = model.layers()
    good, _, _ = train(recipe_of(max_train_steps=5))
    with pytest.raises(Diverged, match="step 6"):
        train(recipe_of(), model)
    assert layers[0].module is model.unet
    assert all(torch.isfinite(p).all() for p in good.parameters())


def test_gradients_that_are_no_numbers_stop_it_too() -> None:
    class InfiniteGradient(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            return grad * float("inf")

    model = OneLayerModel()
    whole = model.predict
    model.predict = lambda *inputs: InfiniteGradient.apply(whole(*inputs))
    with pytest.raises(Diverged, match="step 1"):
        train(recipe_of(), model)


def test_an_optimizer_that_stands_in_is_announced() -> None:
    model = OneLayerModel()
    scan = Scan((Sample(Path("0.png"), "word", 1, 64, 64, True),), (), "word")
    recipe = recipe_of()
    training = Training(model, new_adapter(model.layers(), recipe.adapter, 0), recipe, Schedule(scan, recipe), None)
    training.notice = "AdamW is used instead."
    assert next(fit(training)) == Notice("AdamW is used instead.")
