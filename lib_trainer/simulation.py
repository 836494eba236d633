"""A training step on tensors without contents: what it would take, storage by storage.

The step is the real one, from the noised latents to the last gradient; the optimizer keeps its state and does nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from lib_trainer.adapter.attach import Adapter, attached, new_adapter
from lib_trainer.config import Recipe
from lib_trainer.dataset.batches import Batch
from lib_trainer.host.base import HostModel, SizeCond, TextCond
from lib_trainer.memory.measure import StoragePeak
from lib_trainer.memory.plan import Plan
from lib_trainer.memory.predict import optimizer_bytes
from lib_trainer.training.loop import Training, step_loss

_TEXT_TOKENS, _LATENT_PX = 77, 8


@dataclass(frozen=True)
class Measured:
    """What a step took.

    Attributes:
        peak_bytes: the most that was alive at once, weights and optimizer included.
        kept_bytes: what the forward pass left alive for backward.
    """

    peak_bytes: int
    kept_bytes: int


class SimulatedModel(HostModel, Protocol):
    """A model without contents."""

    unet: nn.Module
    no_contents: AbstractContextManager[Any]

    def weights_elsewhere(self) -> list[Tensor]:
        """Weights that would not lie on a graphics card now."""


def simulate(model: SimulatedModel, plan: Plan, pooled_width: int) -> Measured:
    """What one optimizer step takes under the plan, without a reserve.

    Args:
        pooled_width: of SDXL's pooled text; 0 for other families.
    """
    peak = StoragePeak()
    recipe = plan.recipe
    layers = model.adaptable_layers()
    adapter = new_adapter(layers, recipe.adapter, 0)
    with model.no_contents:
        _prepare(model, plan, peak)
        peak.count(_without_contents(adapter).parameters())
        batch = batch_of(plan, pooled_width)
        with peak, attached(adapter, layers, model.read_weight):
            training = _training(model, adapter, recipe, plan, batch)
            peak.restart()
            before, after_forward = peak.current, []
            whole_backward = training.update.backward

            def backward(share: Tensor) -> None:
                after_forward.append(peak.current)
                whole_backward(share)

            training.update.backward = backward
            with training.update.armed():
                passes = [training.prepare((index, ())) for index in range(recipe.training.gradient_accumulation_steps)]
                step_loss(training, passes, len(passes))
    return Measured(peak.peak, after_forward[0] - before)


def _prepare(model: SimulatedModel, plan: Plan, peak: StoragePeak) -> None:
    """Makes the model ready, and counts the weights that lie on the device then."""
    if not plan.placement.is_lean:
        model.prepare_training(plan.placement, text_encoder=False)
        peak.count(model.unet.parameters())
        return
    peak.ignore(model.unet.parameters())
    with peak:
        model.prepare_training(plan.placement, text_encoder=False)
    peak.leave_out(model.weights_elsewhere())


def _training(model: HostModel, adapter: Adapter, recipe: Recipe, plan: Plan, batch: Batch) -> Training:
    # Libraries' optimizers ask for contents; the stand-in below has the size of theirs.
    standing_in = replace(recipe, training=replace(recipe.training, optimizer="AdamW"))
    schedule: Any = SimpleNamespace(steps=1)
    training = Training(model, adapter, standing_in, schedule, lambda _draws: batch)
    training.dtype = plan.work.compute
    optimizer = _StateOnly(training.optimizer.param_groups, plan.savings.optimizer)
    training.update = type(training.update)(optimizer, training.scaler, recipe.training.max_grad_norm)
    return training


class _StateOnly(torch.optim.Optimizer):
    """An optimizer that has another's state and takes no steps."""

    def __init__(self, groups: Iterable[dict[str, Any]], name: str) -> None:
        super().__init__([{"params": group["params"]} for group in groups], {})
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        self.kept = [torch.empty(optimizer_bytes(name, tuple(p.shape)), dtype=torch.uint8) for p in parameters]

    def step(self, closure: Any = None) -> None:
        """Takes none."""


def _without_contents(adapter: Adapter) -> Adapter:
    for factors in adapter.layers.values():
        for name in factors.names:
            factors.register_parameter(name, nn.Parameter(torch.empty(getattr(factors, name).shape)))
    return adapter


def batch_of(plan: Plan, pooled_width: int) -> Batch:
    """A batch as large as those of the plan, with nothing in it."""
    work, size = plan.work, plan.savings.batch
    latents = torch.zeros(size, work.shape.latent_channels, work.height_px // _LATENT_PX, work.width_px // _LATENT_PX)
    pooled = torch.zeros(size, pooled_width) if pooled_width else None
    text = TextCond(torch.zeros(size, _TEXT_TOKENS, work.shape.context_dim), pooled)
    return Batch(latents, SizeCond(torch.zeros(size, 6)), ("",) * size, text)
