"""The extra loss that holds the base, and its gradient."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from lib_trainer.adapter.attach import attached
from lib_trainer.config.evaluation import EvaluationConfig
from lib_trainer.config.recipe import Recipe
from lib_trainer.dataset.cache_store import TextStore
from lib_trainer.errors import ConfigError
from lib_trainer.events import Step
from lib_trainer.training.denoiser import Denoiser
from lib_trainer.training.loop import Training, fit
from lib_trainer.training.preservation import PROMPTS, Preservation, preserved_prompts
from tests.evaluation.test_evaluation import AnyText, training_of
from tests.training.small import recipe_of

LATENTS = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(5))


def preserving(weight: float = 8.0, every: int = 4) -> Training:
    config = EvaluationConfig(
        prior_preservation=True, prior_preservation_weight=weight, prior_preservation_every_n_steps=every
    )
    training = training_of(replace(recipe_of(), evaluation=config))
    denoiser = Denoiser(training, TextStore(AnyText()))
    training.preservation = Preservation(denoiser, ["one", "two"], list(LATENTS), torch.zeros(6))
    return training


def test_the_gradient_is_that_of_plain_autograd() -> None:
    training = preserving()
    (factors,) = training.adapter.layers.values()
    with torch.no_grad():
        factors.up.normal_(generator=torch.Generator().manual_seed(1))
    with attached(training.adapter, training.model.layers, training.model.read_weight):
        loss = training.preservation.loss(4)
        loss.backward()
        query = training.preservation.query(4)
    plain = {name: tensor.detach().clone().requires_grad_() for name, tensor in factors.tensors.items()}
    delta = torch.einsum("or,rikl->oikl", plain["up"].flatten(1), plain["down"]) * factors.scale
    moved = functional.conv2d(query.x_t[None], delta, padding=1)
    expected = 8.0 * moved.square().mean()
    expected.backward()
    assert torch.allclose(loss, expected, rtol=1e-4)
    for name, tensor in factors.tensors.items():
        assert torch.allclose(tensor.grad, plain[name].grad, rtol=1e-3, atol=1e-6)


def test_it_comes_every_so_many_steps_at_another_prompt() -> None:
    preservation = preserving().preservation
    assert [number for number in range(1, 13) if preservation.is_due(number)] == [4, 8, 12]
    first, second = preservation.query(4), preservation.query(8)
    assert {first.caption, second.caption} == {"one", "two"}
    assert torch.equal(preservation.query(4).x_t, first.x_t)
    again = preservation.query(12)
    assert again.caption == first.caption and again.timestep != first.timestep
    assert not torch.equal(again.x_t, first.x_t)


def test_the_base_is_held() -> None:
    moved = []
    for weight in (0.0, 50.0):
        training = preserving(weight, every=1)
        with attached(training.adapter, training.model.layers, training.model.read_weight):
            assert len([event for event in fit(training) if isinstance(event, Step)]) == 12
            training.preservation._weight = 1.0
            moved.append(float(training.preservation.loss(3).detach()))
    assert moved[1] < 0.5 * moved[0]


def test_the_prompts_are_those_of_the_recipe() -> None:
    assert preserved_prompts(Recipe()) == []
    recipe = Recipe().with_values({"prior_preservation": True})
    assert preserved_prompts(recipe) == list(PROMPTS)
    assert preserved_prompts(recipe.with_values({"prior_prompts": "a cat\n\n a dog "})) == ["a cat", "a dog"]


def test_gradients_that_are_not_kept_cannot_be_added_to() -> None:
    with pytest.raises(ConfigError, match="prior preservation"):
        Recipe().with_values({"prior_preservation": True, "fused_backward_pass": True}).check(needs_name=False)
