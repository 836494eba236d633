"""The training loop: micro-batches in, optimizer steps out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from itertools import count, islice, tee
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
from lib_trainer.models.optimizers import averages
from lib_trainer.training.ema import MovingAverage
from lib_trainer.training.loss import weighted_loss
from lib_trainer.training.loss_scale import LossScale
from lib_trainer.training.micro_batch import MicroBatch, Targets, prepare_micro_batch
from lib_trainer.training.optimizer import make_optimizer, parameter_groups
from lib_trainer.training.optimizer_step import FusedBackwardStep, OptimizerStep, StepMethod
from lib_trainer.training.processes import ALONE, Processes
from lib_trainer.training.schedules import make_schedule
from lib_trainer.utils.prefetch import prefetched

MakeBatch = Callable[[tuple[Draw, ...]], Batch]
# (sample of each image, timesteps (B,) on the CPU, its mean squared error (B,) on the device).
WatchLosses = Callable[[tuple[int, ...], Tensor, Tensor], None]
# One suffices: preparing a micro-batch takes far less time than training on it.
_MICRO_BATCHES_AHEAD = 1


class ExtraLoss(Protocol):
    """A loss besides that of the pictures; `lib_trainer.training.preservation` has one."""

    def is_due(self, number: int) -> bool:
        """Whether step `number` has it."""

    def loss(self, number: int) -> Tensor:
        """A scalar with its graph."""


@dataclass
class Training:
    """What one run trains with. `fit` iterates over it once.

    Attributes:
        optimizer, lr_scheduler: of torch.
        loss_scale: does nothing unless the compute dtype is fp16.
        step_method: when the optimizer steps: after backward, or within it.
        average: of the weights, where the recipe asks for one.
        notice: why another optimizer replaces the recipe's; "" if none does.
        preservation: an extra loss of some steps; set before `fit`.
        watch_losses: is told the loss of every image; set before `fit`.
        rate_share: step -> what it has of the schedule's learning rate; set before `fit`, in the first process.
        targets: makes the targets, where they are not those of pictures; set before `fit`.
        started_from: fingerprint of the LoRAs that it starts from or trains over; "" without any.
        dtype: what the model computes in; None for what suits the recipe and the device.
        processes: that share out each step.
    """

    model: HostModel
    adapter: Adapter
    recipe: Recipe
    schedule: Schedule
    make_batch: MakeBatch
    preservation: ExtraLoss | None = None
    watch_losses: WatchLosses | None = None
    rate_share: Callable[[int], float] = lambda step: 1.0
    targets: Targets | None = None
    started_from: str = ""
    dtype: torch.dtype | None = None
    processes: Processes = ALONE

    def __post_init__(self) -> None:
        config, device = self.recipe.training, self.model.device
        self.dtype = self.dtype or compute_dtype(config.mixed_precision, device)
        if any(parameter.device != device for parameter in self.adapter.parameters()):
            self.adapter.to(device)
        groups = parameter_groups(self.recipe, self.adapter)
        self.optimizer, self.notice = make_optimizer(config, groups, device)
        self.average = MovingAverage(self.adapter, config.ema_decay) if config.ema_decay else None
        self.lr_scheduler = make_schedule(config, self.optimizer, self.schedule.steps)
        self.loss_scale = LossScale(self.dtype == torch.float16)
        kind = FusedBackwardStep if config.fused_backward_pass else OptimizerStep
        max_norm = config.max_grad_norm or math.inf
        self.step_method: StepMethod = kind(self.optimizer, self.loss_scale, max_norm, self.processes)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within, the adapter has the weights that are saved: averaged by the recipe or a Schedule-Free optimizer.

        Those that it steps from come back exactly, so that a run does not depend on how often it was looked at.
        """
        if self._saves_average:
            with self.average.in_place():
                yield
            return
        if not averages(self.optimizer):
            yield
            return
        # On the CPU: the plan has no room for a second adapter on the GPU.
        kept = [parameter.detach().to("cpu", copy=True) for parameter in self.adapter.parameters()]
        self.optimizer.eval()
        try:
            yield
        finally:
            self.optimizer.train()
            with torch.no_grad():
                for parameter, value in zip(self.adapter.parameters(), kept, strict=True):
                    parameter.copy_(value)

    def take_rate(self, share: float) -> None:
        """Gives the next step this share of the learning rates of the schedule."""
        if share < 1.0:
            for group, rate in zip(self.optimizer.param_groups, self.lr_scheduler.get_last_lr(), strict=True):
                group["lr"] = rate * share

    def end(self) -> None:
        """Leaves the adapter with the weights that are saved; no step may follow."""
        if averages(self.optimizer):
            self.optimizer.eval()
        if self._saves_average:
            self.average.copy_in()

    @property
    def _saves_average(self) -> bool:
        return self.average is not None and self.recipe.training.ema_saved == "instead"

    def prepare(self, numbered: tuple[int, tuple[Draw, ...]]) -> MicroBatch:
        """The run's micro-batch of this number and these draws. Thread-safe, in any order."""
        index, draws = numbered
        batch = self.make_batch(draws)
        prepared = prepare_micro_batch(batch, index, self.model, self.recipe, self.dtype, self.targets)
        prepared = replace(prepared, samples=tuple(draw.sample for draw in draws))
        return prepared.pinned_for(self.model.device)


def fit(training: Training, taken: int = 0) -> Iterator[Step | Notice]:
    """Takes the optimizer steps of the schedule after the first `taken`, and yields each.

    Raises:
        Diverged: before a step that would spoil the weights.
    """
    schedule, device, processes = training.schedule, training.model.device, training.processes
    if training.notice:
        yield Notice(training.notice)
    if device.type == "cuda":
        # Caching has peaked higher than training may.
        torch.cuda.reset_peak_memory_stats(device)
    epochs, steps = divmod(taken, schedule.steps_per_epoch)
    # The number of the first micro-batch decides its random draws (`prepare_micro_batch`).
    first = epochs * schedule.batches_per_epoch + steps * schedule.recipe.training.gradient_accumulation_steps
    # The same draws twice: one iterator runs ahead in the preparing thread, one counts the steps here.
    left, ahead = tee(islice(_draws_of_steps(schedule, epochs, steps), schedule.steps - taken))
    numbered = _own(processes, (draws for _, draws in ahead), first)
    processes.begin(training.adapter.parameters())
    started = time.perf_counter()
    # Closed also when a stop is thrown in: no thread may read images once the model is restored.
    with closing(prefetched(numbered, training.prepare, workers=1, ahead=_MICRO_BATCHES_AHEAD)) as futures:
        micro_batches = (future.result() for _, future in futures)
        for number, (epoch, draws) in enumerate(left, start=taken + 1):
            processes.begin_step()
            training.take_rate(processes.of_first(training.rate_share(number)))
            # Read before the step: the scheduler moves it afterwards.
            learning_rate = training.optimizer.param_groups[0]["lr"]
            with training.step_method.hooked():
                on_device = step_loss(training, micro_batches, len(draws))
                if training.preservation and training.preservation.is_due(number):
                    # After the graphs of the images are freed: it takes no more memory than one of them.
                    training.step_method.backward(training.preservation.loss(number) / processes.count)
                loss, moved = training.step_method.finish(on_device, number)
            # As torch advises, a step that loss scaling skipped does not count for the schedule.
            if moved:
                training.lr_scheduler.step()
                if training.recipe.training.scale_weight_norms:
                    training.adapter.limit_norms(training.recipe.training.scale_weight_norms)
                if training.average:
                    training.average.update(number)
            now = time.perf_counter()
            peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
            yield Step(number, schedule.steps, epoch, loss, learning_rate, now - started, peak)
            started = time.perf_counter()


def _draws_of_steps(schedule: Schedule, epochs: int, steps: int) -> Iterator[tuple[int, list[tuple[Draw, ...]]]]:
    """(epoch, the draws of each micro-batch of one optimizer step), endless; an epoch's last step may have fewer.

    Starts after `epochs` epochs and `steps` steps of the next.
    """
    size = schedule.recipe.training.gradient_accumulation_steps
    # Endless, since `max_train_steps` may ask for more epochs than `epoch`; `fit` cuts it.
    for epoch in count(epochs + 1):
        batches = schedule.epoch(epoch)
        for start in range(steps * size, len(batches), size):
            yield epoch, batches[start : start + size]
        steps = 0


def _own(
    processes: Processes, steps: Iterable[list[tuple[Draw, ...]]], first: int
) -> Iterator[tuple[int, tuple[Draw, ...]]]:
    """(number in the run, draws) of each micro-batch that this process computes; the run's are counted from `first`."""
    for draws in steps:
        for place, _ in processes.share(len(draws)):
            yield first + place, draws[place]
        first += len(draws)


def step_loss(training: Training, micro_batches: Iterable[MicroBatch], count: int) -> Tensor:
    """Forward and backward of this process's share of an optimizer step of `count` micro-batches.

    Args:
        micro_batches: of that share; those of later steps may follow.

    Returns:
        Its part of the step's loss, a scalar on the device.
    """
    losses = []
    for (_, counts), micro_batch in zip(training.processes.share(count), micro_batches, strict=False):
        if training.targets:
            micro_batch = training.targets.complete(micro_batch)
        # Until backward is done: gradient checkpointing computes the layers again there.
        masked = training.adapter.masked_ranks(micro_batch.timesteps, training.recipe.adapter)
        with training.adapter.scaled(micro_batch.strength), masked:
            # Divided before backward, so that accumulated gradients are those of the mean.
            loss = _loss(training, micro_batch) / count
            loss = loss if counts else 0.0 * loss
            training.step_method.backward(loss)
        losses.append(loss.detach())
        # Frees this graph before the next micro-batch builds its own.
        del loss
    return torch.stack(losses).sum()


def _loss(training: Training, micro_batch: MicroBatch) -> Tensor:
    """The mean weighted loss of one micro-batch, a scalar with its graph."""
    # From the micro-batch's own generator: a resumed run drops the same rows.
    training.adapter.draw_dropout(training.recipe.adapter, micro_batch.generator)
    drawn = micro_batch.on(training.model.device)
    text = drawn.text or _encode_text(training, drawn)
    predicted = training.model.predict(drawn.x_t, drawn.timesteps, text, drawn.sizes)
    if training.watch_losses:
        errors = (predicted.detach().float() - drawn.wanted.float()).square().flatten(1).mean(1)
        training.watch_losses(micro_batch.samples, micro_batch.timesteps, errors)
    loss_type = training.recipe.loss.loss_type
    return weighted_loss(predicted, drawn.wanted, drawn.weights, loss_type, drawn.thresholds, drawn.masks)


def _encode_text(training: Training, drawn: MicroBatch) -> TextCond:
    """With a graph through the text encoders, which are trained too."""
    text = training.model.encode_text(drawn.captions, training.recipe.training.clip_skip, grad=True)
    if training.adapter.embedding and training.processes.count > 1 and training.recipe.training.fused_backward_pass:
        # Processes exchange gradients within backward: each must have them, also where no caption holds the word.
        nothing = sum(0.0 * vectors.sum() for vectors in training.adapter.embedding.parameters())
        text = replace(text, context=text.context + nothing.to(text.context))
    return text.mapped(lambda tensor: tensor.to(training.model.device, training.dtype))
