"""What one pass of the model computes with. All of it is drawn and put together on the CPU, so that a thread can do it
while the device is busy with the pass before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lib_trainer.config.recipe import Recipe
from lib_trainer.dataset.collate import Batch
from lib_trainer.models.base import HostModel, SizeCond, TextCond
from lib_trainer.training.objective import objective_of

_MAX_SEED = 2**63


@dataclass(frozen=True)
class MicroBatch:
    """One pass's numbers.

    Attributes:
        x_t: (B, C, h, w) noised latents in the compute dtype.
        timesteps: (B,).
        wanted: (B, C, h, w) what the model should say, float32.
        weights: (B,) of each picture's loss, float32.
        thresholds: (B,) of a Huber loss, float32; None for the others.
        sizes: of the pictures.
        captions: one a picture.
        text: what the text encoders made of them, in the compute dtype; None where they are trained and encode anew.
        generator: for what else is drawn in the pass.
    """

    x_t: Tensor
    timesteps: Tensor
    wanted: Tensor
    weights: Tensor
    thresholds: Tensor | None
    sizes: SizeCond
    captions: tuple[str, ...]
    text: TextCond | None
    generator: torch.Generator

    def on(self, device: torch.device) -> MicroBatch:
        """The same on the device. From pinned memory the copies are made while the CPU goes on."""

        def move(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=True)

        return self._with_tensors(move)

    def pinned(self) -> MicroBatch:
        """The same in memory that a graphics card reads by itself."""
        return self._with_tensors(Tensor.pin_memory)

    def _with_tensors(self, change: Callable[[Tensor], Tensor]) -> MicroBatch:
        text = self.text and self.text.mapped(change)
        sizes = SizeCond(change(self.sizes.pixels))
        tensors = {name: change(getattr(self, name)) for name in ("x_t", "timesteps", "wanted", "weights")}
        thresholds = None if self.thresholds is None else change(self.thresholds)
        return replace(self, sizes=sizes, text=text, thresholds=thresholds, **tensors)


def prepare_micro_batch(batch: Batch, index: int, model: HostModel, recipe: Recipe, dtype: torch.dtype) -> MicroBatch:
    """Draws noise and timesteps for the run's pass `index`, on the CPU."""
    # Every pass has a seed of its own, so that a run can go on from any of them.
    generator = torch.Generator().manual_seed((recipe.training.seed * 1_000_003 + index) % _MAX_SEED)
    objective = objective_of(model)
    x_t, noise, timesteps = objective.draw(batch.latents, recipe, generator)
    return MicroBatch(
        x_t=x_t.to(dtype),
        timesteps=timesteps,
        wanted=objective.target(batch.latents, noise, timesteps),
        weights=objective.weights(timesteps, recipe),
        thresholds=objective.thresholds(timesteps, recipe),
        sizes=batch.sizes,
        captions=batch.captions,
        text=batch.text and batch.text.mapped(lambda tensor: tensor.to(dtype)),
        generator=generator,
    )
