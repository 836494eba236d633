"""A training step on tensors without contents: its memory, storage by storage.

The step is the real one, from the noised latents to the last gradient; the optimizer has its state from the beginning
and does nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from lib_trainer.adapter.attach import Adapter, attached, new_adapter
from lib_trainer.config.recipe import Recipe
from lib_trainer.config.task import LORA, SLIDER
from lib_trainer.dataset.collate import Batch
from lib_trainer.memory.optimizer_state import gathered_bytes, optimizer_bytes
from lib_trainer.memory.plan import Plan
from lib_trainer.memory.storage_peak import StoragePeak
from lib_trainer.models.base import HostModel, Layer, SizeCond, TextCond
from lib_trainer.training.denoiser import Denoiser, Query
from lib_trainer.training.loop import Training, step_loss
from lib_trainer.training.micro_batch import Inputs, MicroBatch
from lib_trainer.training.objective import Objective
from lib_trainer.training.preservation import Preservation

_TEXT_TOKENS = 77


class SimulatedModel(HostModel, Protocol):
    """A model whose tensors need no contents."""

    unet: nn.Module
    without_contents: AbstractContextManager[Any]

    def weights_off_device(self) -> list[Tensor]:
        """Weights that would not lie on the GPU now."""


def simulate(
    model: SimulatedModel, plan: Plan, pooled_width: int, peak: StoragePeak | None = None, steps: int = 2
) -> int:
    """Peak bytes of optimizer steps under the plan, weights and optimizer included, without a reserve.

    Args:
        pooled_width: of SDXL's pooled text; 0 for other families.
        peak: counts the storages; a new `StoragePeak` if None.
        steps: how many. Little is left over from one step to the next: a second one changes the allocator's gaps by
            half a per cent, and a slider's answers take 3 % more in it.
    """
    peak = peak or StoragePeak()
    recipe = plan.recipe
    layers = model.adaptable_layers()
    adapter = new_adapter(layers, recipe.adapter, 0, _read_shape)
    with model.without_contents:
        _prepare(model, plan, peak)
        peak.count(_without_contents(adapter).parameters())
        batch = batch_of(plan, pooled_width)
        with peak, attached(adapter, layers, model.read_weight):
            training, optimizer = _training(model, adapter, recipe, plan, batch)
            if recipe.task.mode != LORA:
                training.targets = _FixedTargets(Denoiser(training, _SameText(batch)), batch)
            optimizer.step()
            peak.restart()
            with training.step_method.hooked():
                micro_batches = [
                    training.prepare((index, ())) for index in range(recipe.training.gradient_accumulation_steps)
                ]
                for number in range(steps):
                    step_loss(training, micro_batches, len(micro_batches))
                    if recipe.evaluation.prior_preservation:
                        training.step_method.backward(_preservation(training, batch).loss(number))
                    optimizer.step()
                    adapter.zero_grad(set_to_none=True)
                    if recipe.evaluation.evaluates:
                        queries = [_query(batch)] * plan.savings.batch
                        Denoiser(training, _SameText(batch)).predict(queries, 1.0)
    return peak.peak


def _prepare(model: SimulatedModel, plan: Plan, peak: StoragePeak) -> None:
    """Prepares the model, and counts the weights that lie on the device then."""
    if not plan.placement.offloads:
        model.prepare_training(plan.placement, text_encoder=False)
        peak.count(model.unet.parameters())
        return
    peak.ignore(model.unet.parameters())
    with peak:
        model.prepare_training(plan.placement, text_encoder=False)
    peak.leave_out(model.weights_off_device())


def _training(
    model: HostModel, adapter: Adapter, recipe: Recipe, plan: Plan, batch: Batch
) -> tuple[Training, _StateOnly]:
    # Library optimizers read values, which these tensors lack; `_StateOnly` allocates as much as they do.
    with_adamw = replace(recipe, training=replace(recipe.training, optimizer="AdamW"))
    schedule: Any = SimpleNamespace(steps=1)
    training = Training(model, adapter, with_adamw, schedule, lambda _draws: batch)
    training.dtype = plan.work.compute
    optimizer = _StateOnly(training.optimizer.param_groups, plan.savings.optimizer)
    training.step_method = type(training.step_method)(optimizer, training.loss_scale, recipe.training.max_grad_norm)
    return training, optimizer


class _SameText:
    """Stands in for a `TextStore`: every caption has the text of the batch's first picture."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch

    def read(self, _caption: str) -> TextCond:
        return self._batch.text.mapped(lambda tensor: tensor[0])


class _FixedTargets:
    """Asks the base as a slider does, the most pictures at once: fake tensors have no values to draw a timestep from.

    A difference asks about one list of pictures where a slider asks about three.
    """

    def __init__(self, denoiser: Denoiser, batch: Batch) -> None:
        self._denoiser, self._batch = denoiser, batch

    def inputs(self, batch: Batch, recipe: Recipe, objective: Objective, generator: Any, _strength: float) -> Inputs:
        return Inputs(*objective.draw(batch.latents, recipe, generator))

    def complete(self, micro_batch: MicroBatch) -> MicroBatch:
        count = len(micro_batch.wanted)
        lists = 3 if self._denoiser.training.recipe.task.mode == SLIDER else 1
        answers = self._denoiser.predict([_query(self._batch)] * count * lists, 0.0)
        return replace(micro_batch, wanted=torch.stack(answers[:count]))


class _FixedPreservation(Preservation):
    """Asks the same each time: these tensors have no values to draw a timestep from."""

    def query(self, number: int) -> Query:
        return Query(self._latents[0], 0, self._prompts[0], self._size)


def _query(batch: Batch) -> Query:
    return Query(batch.latents[0], 0, "", batch.sizes.pixels[0])


def _preservation(training: Training, batch: Batch) -> Preservation:
    asked = _query(batch)
    return _FixedPreservation(Denoiser(training, _SameText(batch)), [asked.caption], [asked.x_t], asked.size)


class _StateOnly(torch.optim.Optimizer):
    """Allocates the state of another optimizer, and never steps."""

    def __init__(self, groups: Iterable[dict[str, Any]], name: str) -> None:
        super().__init__([{"params": group["params"]} for group in groups], {})
        self._name = name

    def step(self, closure: Any = None) -> None:
        """Allocates missing state, and for a moment what the step itself takes."""
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        for parameter in parameters:
            if parameter not in self.state:
                size = optimizer_bytes(self._name, tuple(parameter.shape))
                self.state[parameter] = {"kept": torch.empty(size, dtype=torch.uint8)}
        torch.empty(gathered_bytes(self._name, sum(p.numel() for p in parameters)), dtype=torch.uint8)


def _read_shape(layer: Layer, like: Tensor) -> tuple[Tensor, None]:
    """A weight of the layer's shape: what a DoRA begins with takes no part in the memory."""
    return torch.ones(layer.shape), None


def _without_contents(adapter: Adapter) -> Adapter:
    for factors in adapter.layers.values():
        for name, parameter in list(factors.named_parameters()):
            factors.register_parameter(name, nn.Parameter(torch.empty(parameter.shape)))
    return adapter


def batch_of(plan: Plan, pooled_width: int) -> Batch:
    """A batch of zeros, as large as those of the plan."""
    work, size = plan.work, plan.savings.batch
    cell_px, tokens = work.family.latent_px, getattr(work.shape, "text_tokens", _TEXT_TOKENS)
    latents = torch.zeros(size, work.shape.latent_channels, work.height_px // cell_px, work.width_px // cell_px)
    pooled = torch.zeros(size, pooled_width) if pooled_width else None
    text = TextCond(torch.zeros(size, tokens, work.shape.context_dim), pooled)
    return Batch(latents, SizeCond(torch.zeros(size, 6)), ("",) * size, text)
