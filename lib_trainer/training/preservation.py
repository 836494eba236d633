"""Holds unrelated prompts to what the base draws: an extra loss ‖ε_adapter − ε_base‖², without extra pictures.

The idea is that of prior preservation (Ruiz et al., "DreamBooth", 2023), with the base's own answers as the target.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from lib_trainer.config.loss import TIMESTEPS
from lib_trainer.config.recipe import Recipe
from lib_trainer.dataset.cache_store import LatentStore, TextStore
from lib_trainer.events import Progress
from lib_trainer.training.denoiser import Denoiser, Query
from lib_trainer.training.loop import Training
from lib_trainer.training.objective import objective_of

# Things and people in common words. Drift is measured on others, or it would only show that these are held.
PROMPTS = (
    "a portrait of a person with short brown hair",
    "a person with long black hair, serious, looking at camera",
    "a blue car on a white background",
    "a yellow flower on a green background",
    "a brown house on a gray background",
    "a black cat on an orange background",
)
_MAX_SEED = 2**63


def preserved_prompts(recipe: Recipe) -> list[str]:
    """The prompts that are held: the recipe's lines, or PROMPTS; none in a run without preservation."""
    if not recipe.evaluation.prior_preservation:
        return []
    lines = [line.strip() for line in recipe.evaluation.prior_prompts.splitlines() if line.strip()]
    return lines or list(PROMPTS)


def prepare_preservation(training: Training, latents: LatentStore, texts: TextStore | None) -> Iterator[Progress]:
    """Lets `training` preserve the base from here on, where its recipe asks for that. The adapter is attached."""
    prompts = preserved_prompts(training.recipe)
    if not prompts:
        return
    yield Progress("preparing", 0, 1, "Drawing with the checkpoint, to preserve it")
    picture, size = latents.read(*latents.schedule.pictures()[0])
    generator = torch.Generator().manual_seed(training.recipe.training.seed)
    # Fixed once, so that a resumed run preserves the same images.
    noises = [torch.randn(picture.shape, generator=generator) for _ in prompts]
    denoiser = Denoiser(training, texts)
    drawn = denoiser.draw(prompts, noises, size)
    training.preservation = Preservation(denoiser, prompts, drawn, size)


class Preservation:
    """The extra loss of a step.

    Args:
        latents: (C, h, w) what the base draws for each prompt, float32 on the CPU.
        size: (6,) one row of `SizeCond.pixels`.
    """

    def __init__(self, denoiser: Denoiser, prompts: list[str], latents: list[Tensor], size: Tensor) -> None:
        self._denoiser, self._prompts, self._latents, self._size = denoiser, prompts, latents, size
        config = denoiser.training.recipe.evaluation
        self._every, self._weight = config.prior_preservation_every_n_steps, config.prior_preservation_weight

    def is_due(self, number: int) -> bool:
        return number % self._every == 0

    def loss(self, number: int) -> Tensor:
        """weight · mean of ‖ε_adapter − ε_base‖² at a prompt, noise and timestep that follow from the step's number.

        Returns:
            A scalar on the device, with its graph.
        """
        # Base and adapter see the same noise: their difference is the adapter's alone.
        query = self.query(number)
        base = self._denoiser.predict_on_device([query], 0.0)[0]
        answer = self._denoiser.predict_with_graph(query)[0]
        return self._weight * (answer - base).square().mean()

    def query(self, number: int) -> Query:
        """What is asked in this step: another prompt each time."""
        training = self._denoiser.training
        index = number // self._every % len(self._prompts)
        generator = torch.Generator().manual_seed((training.recipe.training.seed * 1_000_003 + number) % _MAX_SEED)
        clean, objective = self._latents[index], objective_of(training.model)
        t = torch.randint(0, TIMESTEPS, (1,), generator=generator)
        noise = torch.randn(clean.shape, generator=generator)
        return Query(objective.add_noise(clean[None], noise[None], t)[0], int(t), self._prompts[index], self._size)
