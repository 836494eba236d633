"""A slider's inputs and targets, and what its adapter learns from them at both strengths."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lib_trainer.adapter.attach import attached, new_adapter
from lib_trainer.config.recipe import Recipe
from lib_trainer.dataset.cache_store import TextStore
from lib_trainer.dataset.sampler import Draw
from lib_trainer.events import Step
from lib_trainer.models.base import CheckpointInfo, Layer
from lib_trainer.training.denoiser import Denoiser
from lib_trainer.training.loop import Training, fit, step_loss
from lib_trainer.training.resume_state import load_state, save_state
from lib_trainer.training.source import open_source
from tests.training.small import SmallModel, recipe_of

LEVELS = {"": 0.0, "a cat": 1.0, "a small cat": 3.0, "a large cat": -2.0}


class ByPrompt(nn.Module):
    """A UNet of one convolution, whose answer is shifted by what the prompt says."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.conv = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor, context: Tensor) -> Tensor:
        return self.conv(x) + context[:, :1, :1, None]


def slider_recipe(**values: object) -> Recipe:
    prompts = {"original_prompt": "a small cat", "target_prompt": "a large cat", "neutral_prompt": "a cat"}
    return recipe_of(**{"mode": "slider", "resolution_px": (64, 64), "bucket_reso_steps": 8, **prompts, **values})


def training_of(recipe: Recipe, cfg_scale: float = 7.0) -> Training:
    unet = ByPrompt()
    model = SmallModel(unet, [Layer("lora_unet_conv", unet.conv, "conv2d", (4, 4, 3, 3), padding=(1, 1))])
    model.checkpoint = CheckpointInfo("small.safetensors", "abc")
    shape = SimpleNamespace(latent_channels=4)
    model.family = SimpleNamespace(cfg_scale=cfg_scale, latent_px=8, shape=shape)
    texts = TextStore({text: {"context": torch.full((77, 8), level)} for text, level in LEVELS.items()})
    source = open_source(recipe)
    caching = source.cache(model, source.recipe, None, frozenset(), ())
    with pytest.raises(StopIteration) as done:
        next(caching)
    latents = done.value.value
    adapter = new_adapter(model.layers, recipe.adapter, recipe.training.seed)
    training = Training(model, adapter, source.recipe, latents.store.schedule, latents.batches(texts))
    training.targets = source.targets(Denoiser(training, texts))
    return training


def completed(training: Training, index: int, pictures: int = 1):
    with attached(training.adapter, training.model.layers, training.model.read_weight):
        return training.targets.complete(training.prepare((index, (Draw(0, 0, "a cat"),) * pictures)))


def test_both_strengths_train_on_one_picture_towards_opposite_targets() -> None:
    training = training_of(slider_recipe(positive_strength=2.0, negative_strength=0.5))
    first, second, third = (completed(training, index) for index in range(3))
    assert (first.strength, second.strength, third.strength) == (1.0, -1.0, 1.0)
    assert torch.equal(first.x_t, second.x_t) and not torch.equal(first.x_t, third.x_t)
    neutral = training.model.unet(first.x_t, first.timesteps, torch.ones(1, 77, 8))
    way = LEVELS["a large cat"] - LEVELS["a small cat"]
    assert torch.allclose(first.wanted, neutral + 2.0 * way, atol=1e-5)
    assert torch.allclose(second.wanted, neutral - 0.5 * way, atol=1e-5)
    one_way = training_of(slider_recipe(negative_strength=0))
    assert {completed(one_way, index).strength for index in range(3)} == {1.0}


@pytest.mark.parametrize(("cfg_scale", "guidance"), [(7.0, 3.0), (2.0, 2.0), (1.0, 1.0)])
def test_pictures_are_denoised_from_noise_to_the_timestep(cfg_scale: float, guidance: float) -> None:
    """DDIM with guidance, written out; distilled models have less or none."""
    training = training_of(slider_recipe(max_denoising_steps=4, min_timestep=300, max_timestep=301), cfg_scale)
    found, unet, alphas = completed(training, 0), training.model.unet, training.model.alphas_cumprod
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 4, 8, 8, generator=generator)
    for t, following in ((999, 749), (749, 500), (500, 300)):
        empty = unet.conv(x)
        answer = empty + guidance * LEVELS["a cat"]
        clean = (x - (1 - alphas[t]).sqrt() * answer) / alphas[t].sqrt()
        x = alphas[following].sqrt() * clean + (1 - alphas[following]).sqrt() * answer
    assert found.timesteps.tolist() == [300] and torch.allclose(found.x_t, x, rtol=1e-3, atol=1e-3)
    at_once = completed(training_of(slider_recipe(max_denoising_steps=0)), 0)
    assert torch.equal(at_once.x_t, torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)))


def test_the_pictures_of_a_batch_stop_at_one_timestep() -> None:
    found = completed(training_of(slider_recipe(train_batch_size=3, max_denoising_steps=2)), 0, pictures=3)
    assert len(found.timesteps) == 3 and len(set(found.timesteps.tolist())) == 1
    assert not torch.equal(found.x_t[0], found.x_t[1])


def test_the_base_is_asked_once_for_both_strengths(monkeypatch: pytest.MonkeyPatch) -> None:
    training = training_of(slider_recipe(max_denoising_steps=2))
    asked, predict = [], training.model.predict
    monkeypatch.setattr(training.model, "predict", lambda *inputs: asked.append(1) or predict(*inputs))
    completed(training, 0)
    before = len(asked)
    completed(training, 1)
    assert before and len(asked) == before
    completed(training, 2)
    assert len(asked) > before


def test_gradients_of_a_step_are_those_of_plain_autograd() -> None:
    training = training_of(slider_recipe(gradient_accumulation_steps=2, max_denoising_steps=2))
    (factors,) = training.adapter.layers.values()
    with torch.no_grad():
        factors.up.normal_(generator=torch.Generator().manual_seed(1))
    draws = (Draw(0, 0, "a cat"),)
    micro_batches = [training.prepare((index, draws)) for index in range(2)]
    with attached(training.adapter, training.model.layers, training.model.read_weight):
        loss = step_loss(training, micro_batches, 2)
    assert factors.strength == 1.0
    plain = {name: tensor.detach().clone().requires_grad_() for name, tensor in factors.tensors.items()}
    expected = torch.zeros(())
    for micro_batch in (completed(training, index) for index in range(2)):
        delta = torch.einsum("or,rikl->oikl", plain["up"].flatten(1), plain["down"]) * factors.scale
        moved = functional.conv2d(micro_batch.x_t, micro_batch.strength * delta, padding=1)
        neutral = training.model.unet(micro_batch.x_t, micro_batch.timesteps, torch.ones(1, 77, 8))
        expected = expected + (neutral + moved - micro_batch.wanted).square().mean() / 2
    expected.backward()
    assert torch.allclose(loss, expected, rtol=1e-4)
    for name, tensor in factors.tensors.items():
        assert torch.allclose(tensor.grad, plain[name].grad, rtol=1e-3, atol=1e-6), name


def test_a_broken_slider_ends_with_the_same_numbers(tmp_path: Path) -> None:
    """Broken between the two strengths of one picture."""
    recipe = slider_recipe(max_train_steps=6, max_denoising_steps=3)

    def take(training: Training, taken: int, last: int) -> list[float]:
        with attached(training.adapter, training.model.layers, training.model.read_weight):
            events = islice(fit(training, taken), last - taken)
            return [event.loss for event in events if isinstance(event, Step)]

    whole, first, second = (training_of(recipe) for _ in range(3))
    losses = take(whole, 0, 6)
    take(first, 0, 3)
    save_state(tmp_path / "state", first, 3, "")
    assert take(second, load_state(tmp_path / "state", second, ""), 6) == losses[3:]
    for one, other in zip(whole.adapter.parameters(), second.adapter.parameters(), strict=True):
        assert torch.equal(one, other)
