"""The training loop: batches in, steps out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, count, islice, tee
from typing import Protocol

import torch
from torch import Tensor

from lib_trainer.adapter.attach import Adapter
from lib_trainer.config.recipe import Recipe
from lib_trainer.dataset.collate import Batch
from lib_trainer.dataset.sampler import Draw, Schedule
from lib_trainer.events import Notice, Step
from lib_trainer.models.base import HostModel, TextCond
from lib_trainer.models.device import compute_dtype
from lib_trainer.training.loss import weighted_loss
from lib_trainer.training.micro_batch import MicroBatch, prepare_micro_batch
from lib_trainer.training.optimizer import make_optimizer, make_scaler, make_schedule, parameter_groups
from lib_trainer.training.optimizer_step import FusedBackwardStep, OptimizerStep, Update
from lib_trainer.utils.prefetch import made_ahead

MakeBatch = Callable[[tuple[Draw, ...]], Batch]
# How many passes wait ready while one is computed.
_PASSES_AHEAD = 1


class ExtraLoss(Protocol):
    """A loss besides that of the pictures; `lib_trainer.training.preservation` has one."""

    def is_due(self, number: int) -> bool:
        """Whether step `number` has it."""

    def loss(self, number: int) -> Tensor:
        """A scalar with its graph."""


@dataclass
class Training:
    """What one run trains with. `fit` goes through it once.

    Attributes:
        preservation: an extra loss of some steps; set before `fit`.
    """

    model: HostModel
    adapter: Adapter
    recipe: Recipe
    schedule: Schedule
    make_batch: MakeBatch
    preservation: ExtraLoss | None = None

    def __post_init__(self) -> None:
        config, device = self.recipe.training, self.model.device
        self.dtype = compute_dtype(config.mixed_precision, device)
        if any(parameter.device != device for parameter in self.adapter.parameters()):
            self.adapter.to(device)
        groups = parameter_groups(config, self.adapter.layers_of("lora_unet_"), self.adapter.layers_of("lora_te"))
        self.optimizer, self.notice = make_optimizer(config, groups, device)
        self.rate = make_schedule(config, self.optimizer, self.schedule.steps)
        self.scaler = make_scaler(self.dtype, device)
        kind = FusedBackwardStep if config.fused_backward_pass else OptimizerStep
        self.update: Update = kind(self.optimizer, self.scaler, config.max_grad_norm or math.inf)

    def prepare(self, numbered: tuple[int, tuple[Draw, ...]]) -> MicroBatch:
        """The run's pass of this number, which draws these. Any thread may do it, before its turn."""
        index, draws = numbered
        drawn = prepare_micro_batch(self.make_batch(draws), index, self.model, self.recipe, self.dtype)
        return drawn.pinned() if self.model.device.type == "cuda" else drawn


def fit(training: Training, taken: int = 0) -> Iterator[Step | Notice]:
    """Takes every optimizer step of the schedule after the first `taken`, and says so after each.

    Raises:
        Diverged: before a step that would spoil the weights.
    """
    if training.notice:
        yield Notice(training.notice)
    if training.model.device.type == "cuda":
        # What caching took before is none of training's peak.
        torch.cuda.reset_peak_memory_stats(training.model.device)
    schedule = training.schedule
    epochs, steps = divmod(taken, schedule.steps_per_epoch)
    index = epochs * schedule.batches_per_epoch + steps * schedule.recipe.training.gradient_accumulation_steps
    left, drawn = tee(islice(_steps(schedule, epochs, steps), schedule.steps - taken))
    numbered = enumerate(chain.from_iterable(micro_batches for _, micro_batches in drawn), start=index)
    started = time.perf_counter()
    with closing(made_ahead(numbered, training.prepare, workers=1, ahead=_PASSES_AHEAD)) as ahead:
        prepared = (future.result() for _, future in ahead)
        for number, (epoch, micro_batches) in enumerate(left, start=taken + 1):
            learning_rate = training.optimizer.param_groups[0]["lr"]
            with training.update.armed():
                on_device = step_loss(training, islice(prepared, len(micro_batches)), len(micro_batches))
                if training.preservation and training.preservation.is_due(number):
                    # After the pictures' graphs are gone: it takes no more memory than one of them.
                    training.update.backward(training.preservation.loss(number))
                loss, moved = training.update.finish(on_device, number)
            if moved:
                training.rate.step()
            now = time.perf_counter()
            peak = _peak_bytes(training.model.device)
            yield Step(number, schedule.steps, epoch, loss, learning_rate, now - started, peak)
            started = time.perf_counter()


def _steps(schedule: Schedule, epochs: int, steps: int) -> Iterator[tuple[int, list[tuple[Draw, ...]]]]:
    """(epoch, the passes of one optimizer step) for ever; the last step of an epoch may have fewer.

    Begins after so many whole `epochs`, and `steps` of the next.
    """
    size = schedule.recipe.training.gradient_accumulation_steps
    for epoch in count(epochs + 1):
        batches = schedule.epoch(epoch)
        for start in range(steps * size, len(batches), size):
            yield epoch, batches[start : start + size]
        steps = 0


def step_loss(training: Training, micro_batches: Iterable[MicroBatch], count: int) -> Tensor:
    """Forward and backward of one optimizer step's passes, `count` of them.

    Returns:
        The step's loss, a scalar on the device.
    """
    shares = []
    for drawn in micro_batches:
        share = _pass_loss(training, drawn) / count
        training.update.backward(share)
        shares.append(share.detach())
        # Its graph goes before the next pass builds its own.
        del share
    return torch.stack(shares).sum()


def _pass_loss(training: Training, drawn: MicroBatch) -> Tensor:
    """The loss of one pass, a scalar with its graph."""
    model = training.model
    training.adapter.draw_dropout(training.recipe.adapter, drawn.generator)
    drawn = drawn.on(model.device)
    predicted = model.predict(drawn.x_t, drawn.timesteps, drawn.text or _fresh_text(training, drawn), drawn.sizes)
    loss_type = training.recipe.loss.loss_type
    return weighted_loss(predicted, drawn.wanted, drawn.weights, loss_type, drawn.thresholds)


def _fresh_text(training: Training, drawn: MicroBatch) -> TextCond:
    """What the text encoders that are being trained make of the captions, with its graph."""
    text = training.model.encode_text(drawn.captions, training.recipe.training.clip_skip, grad=True)

    return text.mapped(lambda tensor: tensor.to(training.model.device, training.dtype))


def _peak_bytes(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
