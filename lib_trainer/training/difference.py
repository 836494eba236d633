"""A difference's targets: pairs of pictures A and B under the same noise, and what the base model says of each.

At strength 1 the adapter sees B and learns to say what the base says of A, so that it takes what B has for right; at
strength −1 the other way around:

    ε_adapter(b_t, c) = ε(a_t, c)  at 1,    ε_adapter(a_t, c) = ε(b_t, c)  at −1,

with a_t and b_t the two under the same noise and timestep. Where the base cannot tell them apart, the change is that of
the pictures, √ᾱ/√(1−ᾱ)·(A − B); where it sees both clearly there is nothing to learn. Source: ADDifT of TrainTrain
(https://github.com/hako-mikan/sd-webui-traintrain).
"""

from __future__ import annotations

from dataclasses import replace

import torch

from lib_trainer.config.recipe import Recipe
from lib_trainer.dataset.collate import Batch
from lib_trainer.training.denoiser import Denoiser, Query
from lib_trainer.training.micro_batch import Inputs, MicroBatch
from lib_trainer.training.objective import Objective


class DifferenceTargets:
    """Asks the base model about the other picture of each pair."""

    def __init__(self, denoiser: Denoiser) -> None:
        self._denoiser = denoiser

    def inputs(
        self, batch: Batch, recipe: Recipe, objective: Objective, generator: torch.Generator, strength: float
    ) -> Inputs:
        """What the adapter sees, and for `complete` what the base is asked about."""
        a_t, noise, timesteps = objective.draw(batch.latents, recipe, generator)
        b_t = a_t + objective.add_noise(batch.others - batch.latents, torch.zeros_like(noise), timesteps)
        return Inputs(b_t, a_t, timesteps) if strength > 0 else Inputs(a_t, b_t, timesteps)

    def complete(self, micro_batch: MicroBatch) -> MicroBatch:
        """The micro-batch with the base's answers as its targets."""
        asked = zip(
            micro_batch.wanted,
            micro_batch.timesteps.tolist(),
            micro_batch.captions,
            micro_batch.sizes.pixels,
            strict=True,
        )
        answers = self._denoiser.predict([Query(*values) for values in asked], 0.0)
        return replace(micro_batch, wanted=torch.stack(answers))
