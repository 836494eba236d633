"""What one pass of the UNet computes with. All of it is drawn and put together on the CPU, so that a thread can do it
while the device is busy with the pass before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lib_trainer.config.recipe import Recipe
from lib_trainer.dataset.collate import Batch
from lib_trainer.models.base import HostModel, SizeCond, TextCond
from lib_trainer.training.diffusion import add_noise, target
from lib_trainer.training.loss import huber_thresholds, loss_weights
from lib_trainer.training.noise import draw_noise, draw_timesteps, perturb

_MAX_SEED = 2**63


@dataclass(frozen=True)
class MicroBatch:
    """One pass's numbers.

    Attributes:
        x_t: (B, 4, h, w) noised latents in the compute dtype.
        timesteps: (B,).
        wanted: (B, 4, h, w) what the UNet should say, float32.
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
        text = self.text
        if text is not None:
            text = TextCond(change(text.context), None if text.pooled is None else change(text.pooled))
        sizes = SizeCond(change(self.sizes.pixels))
        tensors = {name: change(getattr(self, name)) for name in ("x_t", "timesteps", "wanted", "weights")}
        thresholds = None if self.thresholds is None else change(self.thresholds)
        return replace(self, sizes=sizes, text=text, thresholds=thresholds, **tensors)


def prepare_micro_batch(batch: Batch, index: int, model: HostModel, recipe: Recipe, dtype: torch.dtype) -> MicroBatch:
    """Draws noise and timesteps for the run's pass `index`, on the CPU."""
    # Every pass has a seed of its own, so that a run can go on from any of them.
    generator = torch.Generator().manual_seed((recipe.training.seed * 1_000_003 + index) % _MAX_SEED)
    config, alphas, prediction = recipe.loss, model.alphas_cumprod, model.prediction
    noise = draw_noise(batch.latents, config, generator)
    timesteps = draw_timesteps(len(batch.latents), alphas, config, generator)
    text = batch.text
    if text is not None:
        text = TextCond(text.context.to(dtype), None if text.pooled is None else text.pooled.to(dtype))
    return MicroBatch(
        x_t=add_noise(batch.latents, perturb(noise, config, generator), timesteps, alphas).to(dtype),
        timesteps=timesteps,
        wanted=target(batch.latents, noise, timesteps, alphas, prediction),
        weights=loss_weights(timesteps, alphas, config, prediction),
        thresholds=huber_thresholds(timesteps, alphas, config),
        sizes=batch.sizes,
        captions=batch.captions,
        text=text,
        generator=generator,
    )
