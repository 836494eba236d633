"""A difference's inputs and targets: pairs under one noise, each asked about the other."""

from __future__ import annotations

from dataclasses import replace

import torch

from lib_trainer.adapter.attach import attached
from lib_trainer.dataset.cache_store import TextStore
from lib_trainer.dataset.sampler import Draw
from lib_trainer.training.denoiser import Denoiser
from lib_trainer.training.difference import DifferenceTargets
from lib_trainer.training.loop import Training, step_loss
from tests.evaluation.test_evaluation import AnyText, training_of
from tests.training.small import make_batch, recipe_of

DRAWS = (Draw(0, 0, "a cat"), Draw(1, 0, "a dog"))
# Alike, as pictures of a pair are.
CHANGE = 0.3 * torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(77))
OTHERS = make_batch(DRAWS).latents + CHANGE


def difference() -> Training:
    training = training_of(recipe_of(mode="difference", train_batch_size=2, noise_offset=0.1))
    training.make_batch = lambda draws: replace(make_batch(draws), others=OTHERS)
    training.targets = DifferenceTargets(Denoiser(training, TextStore(AnyText())))
    return training


def test_each_picture_is_to_get_the_answer_to_the_other() -> None:
    training, alphas = difference(), training_of(recipe_of()).model.alphas_cumprod
    (factors,) = training.adapter.layers.values()
    torch.nn.init.normal_(factors.up)
    conv = training.model.unet.conv
    with attached(training.adapter, training.model.layers, training.model.read_weight):
        parts = [training.targets.complete(training.prepare((index, DRAWS))) for index in range(2)]
    plus, minus = parts
    assert (plus.strength, minus.strength) == (1.0, -1.0)
    assert torch.equal(plus.timesteps, minus.timesteps) and plus.timesteps.unique().numel() == 2
    # Strength 1 sees the second pictures, and is to say what the base says of the first.
    assert torch.allclose(plus.wanted, conv(minus.x_t), atol=1e-5)
    assert torch.allclose(minus.wanted, conv(plus.x_t), atol=1e-5)
    noise = [
        (part.x_t - alphas[part.timesteps].sqrt().reshape(-1, 1, 1, 1) * latents)
        for part, latents in ((plus, OTHERS), (minus, make_batch(DRAWS).latents))
    ]
    assert torch.allclose(*noise, atol=1e-5), "the same noise"


def test_a_step_of_both_strengths_moves_the_adapter_one_way() -> None:
    training = difference()
    micro_batches = [training.prepare((index, DRAWS)) for index in range(2)]
    with attached(training.adapter, training.model.layers, training.model.read_weight):
        gradients = []
        for micro_batch in micro_batches:
            training.adapter.zero_grad(set_to_none=True)
            step_loss(training, [micro_batch], 1)
            gradients.append(next(iter(training.adapter.layers.values())).up.grad.flatten())
    # Not the same, since they see two pictures; but what strength −1 learns is the opposite of what strength 1 learns.
    assert float(torch.cosine_similarity(*gradients, dim=0)) > 0.9
