"""The tensors of one micro-batch. They are drawn on the CPU, so that a thread prepares the next one meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from lib_trainer.config.recipe import Recipe
from lib_trainer.dataset.collate import Batch
from lib_trainer.models.base import HostModel, SizeCond, TextCond
from lib_trainer.models.device import pinned
from lib_trainer.training.objective import Objective, objective_of

_MAX_SEED = 2**63
# A prime: the seeds of two runs with neighbouring seeds then meet only after a million micro-batches.
_SEED_STRIDE = 1_000_003


@dataclass(frozen=True)
class MicroBatch:
    """What one forward and backward of the UNet needs; gradient accumulation sums several.

    Attributes:
        x_t: (B, C, h, w) noised latents in the compute dtype.
        timesteps: (B,).
        wanted: (B, C, h, w) the target of the prediction, float32.
        weights: (B,) of each image's loss, float32.
        thresholds: (B,) of a Huber loss, float32; None for other losses.
        masks: (B, h, w) factor of each latent cell's error, float32; None where all are 1.
        sizes: of the images.
        captions: one an image.
        text: their encodings in the compute dtype; None while the text encoders are trained.
        strength: that the adapter acts at.
        samples: index of each image into `Scan.samples`; empty where no watcher needs them.
        generator: for what else the micro-batch draws, such as dropout.
    """

    x_t: Tensor
    timesteps: Tensor
    wanted: Tensor
    weights: Tensor
    thresholds: Tensor | None
    masks: Tensor | None
    sizes: SizeCond
    captions: tuple[str, ...]
    text: TextCond | None
    generator: torch.Generator
    strength: float = 1.0
    samples: tuple[int, ...] = ()

    def on(self, device: torch.device) -> MicroBatch:
        """The same on the device; from pinned memory the copies do not block the CPU."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pinned_for(self, device: torch.device) -> MicroBatch:
        """The same in memory that a GPU reads by itself."""
        return self._map(lambda tensor: pinned(tensor, device))

    def _map(self, change: Callable[[Tensor], Tensor]) -> MicroBatch:
        text = self.text and self.text.mapped(change)
        sizes = SizeCond(change(self.sizes.pixels))
        # The generator stays on the CPU, where draws are the same for every device.
        tensors = {name: change(getattr(self, name)) for name in ("x_t", "timesteps", "wanted", "weights")}
        for name in ("thresholds", "masks"):
            tensors[name] = None if getattr(self, name) is None else change(getattr(self, name))
        return replace(self, sizes=sizes, text=text, **tensors)


@dataclass(frozen=True)
class Inputs:
    """x_t, wanted and timesteps of a micro-batch; float32 on the CPU."""

    x_t: Tensor
    wanted: Tensor
    timesteps: Tensor


class Targets(Protocol):
    """Where a run's targets come from, if not from its pictures: the base model's answers, in two parts."""

    def inputs(
        self, batch: Batch, recipe: Recipe, objective: Objective, generator: torch.Generator, strength: float
    ) -> Inputs:
        """What can be drawn on the CPU, in any thread; `wanted` is what `complete` needs to know.

        Args:
            strength: that the adapter will act at.
        """

    def complete(self, micro_batch: MicroBatch) -> MicroBatch:
        """The micro-batch with its targets, still on the CPU; asks the model."""


def prepare_micro_batch(
    batch: Batch, index: int, model: HostModel, recipe: Recipe, dtype: torch.dtype, targets: Targets | None = None
) -> MicroBatch:
    """Draws noise and timesteps for the run's micro-batch number `index`, on the CPU."""
    # Two strengths take turns on the same pictures and noise.
    number, turn = divmod(index, len(recipe.task.signs))
    # Seeded by its number, so that a resumed run draws what an unbroken one would have drawn.
    generator = torch.Generator().manual_seed((recipe.training.seed * _SEED_STRIDE + number) % _MAX_SEED)
    objective, strength = objective_of(model), recipe.task.signs[turn]
    draw = targets.inputs if targets else _inputs_of_pictures
    inputs = draw(batch, recipe, objective, generator, strength)
    timesteps = inputs.timesteps
    return MicroBatch(
        x_t=inputs.x_t.to(dtype),
        timesteps=timesteps,
        wanted=inputs.wanted,
        weights=objective.weights(timesteps, recipe) * _prior_weights(batch, recipe),
        thresholds=objective.thresholds(timesteps, recipe),
        # OneTrainer's unmasked weight: what is outside the mask may count a little.
        masks=None if batch.masks is None else batch.masks.clamp(min=recipe.loss.unmasked_weight),
        sizes=batch.sizes,
        captions=batch.captions,
        text=batch.text and batch.text.mapped(lambda tensor: tensor.to(dtype)),
        generator=generator,
        strength=strength,
    )


def _inputs_of_pictures(
    batch: Batch, recipe: Recipe, objective: Objective, generator: torch.Generator, _strength: float
) -> Inputs:
    x_t, noise, timesteps = objective.draw(batch.latents, recipe, generator)
    return Inputs(x_t, objective.target(batch.latents, noise, timesteps), timesteps)


def _prior_weights(batch: Batch, recipe: Recipe) -> Tensor:
    """(B,): kohya's prior_loss_weight for pictures of the class, 1 for all others."""
    prior = recipe.loss.prior_loss_weight
    regularising = batch.regularising or (False,) * len(batch.latents)
    return torch.tensor([prior if is_prior else 1.0 for is_prior in regularising])
