"""A slider's targets, from prompts alone: what the base model says of them.

With c_n, c_o and c_t for the neutral, original and target prompt, η for the strengths and ε for the base model's
prediction, the adapter learns at strength 1 and −1

    ε_adapter(x_t, c_n) = ε(x_t, c_n) ± η·(ε(x_t, c_t) − ε(x_t, c_o)).

Sources: Gandikota et al., "Concept Sliders" (2023), equations 7 and 8; the inputs x_t, which the model draws itself,
are those of Gandikota et al., "Erasing Concepts from Diffusion Models" (2023), and of LECO
(https://github.com/p1atdev/LECO). With the original as neutral prompt and η = 1 strength 1 is the iLECO of TrainTrain
(https://github.com/hako-mikan/sd-webui-traintrain): the original becomes the target. The coefficients sum to 1, so the
same holds for predictions of v and of flow matching.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor

from lib_trainer.config.recipe import Recipe
from lib_trainer.config.task import SliderPrompt
from lib_trainer.dataset.collate import Batch
from lib_trainer.training.denoiser import Denoiser, Query
from lib_trainer.training.micro_batch import Inputs, MicroBatch
from lib_trainer.training.objective import Objective, objective_of

# LECO's guidance while it draws, or the family's own where that is less, as for distilled models.
_GUIDANCE = 3.0


def slider_prompts(prompts: Sequence[SliderPrompt]) -> list[str]:
    """Every prompt that a slider asks about besides its neutral ones; the empty one is for guidance."""
    return list(dict.fromkeys(["", *(text for line in prompts for text in (line.original, line.target))]))


class SliderTargets:
    """Draws half-finished pictures with the base model, and asks it where they should go.

    Args:
        prompts: by index of the run's samples.
    """

    def __init__(self, denoiser: Denoiser, prompts: Sequence[SliderPrompt]) -> None:
        self._denoiser, self._prompts = denoiser, prompts
        training = denoiser.training
        self._task, self._objective = training.recipe.task, objective_of(training.model)
        self._guidance = min(_GUIDANCE, training.model.family.cfg_scale)
        # The last noise, and what the base said: both strengths train on the same.
        self._last: tuple[Tensor, tuple[Tensor, Tensor, Tensor]] | None = None

    def inputs(
        self, batch: Batch, recipe: Recipe, objective: Objective, generator: torch.Generator, _: float
    ) -> Inputs:
        """Noise, and one timestep for the whole batch, for `complete`."""
        _, noise, timesteps = objective.draw(batch.latents, recipe, generator)
        return Inputs(noise, noise, timesteps[:1].repeat(len(noise)))

    def complete(self, micro_batch: MicroBatch) -> MicroBatch:
        """The micro-batch with inputs and targets in place of its noise."""
        x_t, neutral, direction = self._answers(micro_batch)
        sign = micro_batch.strength
        strength = self._task.positive_strength if sign > 0 else self._task.negative_strength
        return replace(micro_batch, x_t=x_t.to(micro_batch.x_t.dtype), wanted=neutral + sign * strength * direction)

    def _answers(self, micro_batch: MicroBatch) -> tuple[Tensor, Tensor, Tensor]:
        """(x_t, ε of the neutral prompts, ε of the targets less that of the originals), float32 on the CPU."""
        noise = micro_batch.wanted
        if self._last and torch.equal(self._last[0], noise):
            return self._last[1]
        lines = [self._prompts[sample] for sample in micro_batch.samples]
        t = micro_batch.timesteps[0].item()
        x_t = self._draw(noise, t, [line.neutral for line in lines], micro_batch.sizes.pixels)
        asked = [[line.neutral for line in lines], [line.target for line in lines], [line.original for line in lines]]
        neutral, target, original = self._ask(x_t, t, asked, micro_batch.sizes.pixels)
        found = x_t, neutral, target - original
        self._last = noise, found
        return found

    def _draw(self, noise: Tensor, t: float, prompts: list[str], sizes: Tensor) -> Tensor:
        """Pictures of these prompts, denoised from noise (B, C, h, w) down to timestep t.

        DDIM without noise (Song et al., "Denoising Diffusion Implicit Models", 2021), with guidance.
        """
        steps = self._task.max_denoising_steps
        times = [time for time in self._objective.drawing_times(steps) if time > t] if steps else []
        x, guidance = noise, self._guidance
        for time, following in pairwise([*times, t]):
            asked = [prompts, [""] * len(prompts)] if guidance > 1 else [prompts]
            answer, *empty = self._ask(x, time, asked, sizes)
            if empty:
                answer = empty[0] + guidance * (answer - empty[0])
            clean, noised = self._objective.split(x, answer, time)
            x = self._objective.add_noise(clean, noised, torch.tensor([following] * len(x)))
        return x

    def _ask(self, x: Tensor, t: float, prompts: list[list[str]], sizes: Tensor) -> list[Tensor]:
        """What the base says of x (B, C, h, w) under each of the lists of B prompts."""
        count = len(x)
        queries = [Query(x[i], t, asked[i], sizes[i]) for asked in prompts for i in range(count)]
        answers = self._denoiser.predict(queries, 0.0)
        return [torch.stack(answers[start : start + count]) for start in range(0, len(answers), count)]
