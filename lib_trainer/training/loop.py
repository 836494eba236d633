"""The training loop: batches in, steps out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lib_trainer.adapter.attach import Adapter
from lib_trainer.config import Recipe, TrainingConfig
from lib_trainer.dataset.batches import Batch
from lib_trainer.dataset.schedule import Draw, Schedule
from lib_trainer.events import Notice, Step
from lib_trainer.host.base import HostModel, SizeCond, TextCond
from lib_trainer.training.diffusion import add_noise, draw_noise, draw_timesteps, min_snr_weights, target, weighted_loss
from lib_trainer.training.optimizer import compute_dtype, make_optimizer, make_schedule, parameter_groups
from lib_trainer.training.updates import FusedUpdate, Update, WholeUpdate

if TYPE_CHECKING:
    from torch.amp import GradScaler

MakeBatch = Callable[[tuple[Draw, ...]], Batch]
_MAX_SEED = 2**63


@dataclass
class Training:
    """What one run trains with. `fit` goes through it once."""

    model: HostModel
    adapter: Adapter
    recipe: Recipe
    schedule: Schedule
    make_batch: MakeBatch

    def __post_init__(self) -> None:
        config, device = self.recipe.training, self.model.device
        self.dtype = compute_dtype(config.mixed_precision, device)
        if any(parameter.device != device for parameter in self.adapter.parameters()):
            self.adapter.to(device)
        groups = parameter_groups(config, self.adapter.layers_of("lora_unet_"), self.adapter.layers_of("lora_te"))
        self.optimizer, self.notice = make_optimizer(config, groups, device)
        self.rate = make_schedule(config, self.optimizer, self.schedule.steps)
        self.scaler: GradScaler = torch.amp.GradScaler(device.type, enabled=self.dtype == torch.float16)
        kind = FusedUpdate if config.fused_backward_pass else WholeUpdate
        self.update: Update = kind(self.optimizer, self.scaler, config.max_grad_norm or math.inf)


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
    started = time.perf_counter()
    left = islice(_steps(schedule, epochs, steps), schedule.steps - taken)
    for number, (epoch, passes) in enumerate(left, start=taken + 1):
        learning_rate = training.optimizer.param_groups[0]["lr"]
        with training.update.armed():
            loss = step_loss(training, passes, index)
            moved = training.update.finish(loss, number)
        index += len(passes)
        if moved:
            training.rate.step()
        now = time.perf_counter()
        peak = _peak_bytes(training.model.device)
        yield Step(number, schedule.steps, epoch, float(loss), learning_rate, now - started, peak)
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


def step_loss(training: Training, passes: Sequence[tuple[Draw, ...]], index: int) -> Tensor:
    """Forward and backward of one optimizer step's passes, of which the first is the run's pass `index`.

    Returns:
        The step's loss, a scalar on the device.
    """
    shares = []
    for place, draws in enumerate(passes):
        share = _pass_loss(training, draws, index + place) / len(passes)
        training.update.backward(share)
        shares.append(share.detach())
        # Its graph goes before the next pass builds its own.
        del share
    return torch.stack(shares).sum()


def _pass_loss(training: Training, draws: tuple[Draw, ...], index: int) -> Tensor:
    """The loss of one pass, a scalar with its graph."""
    model, config = training.model, training.recipe.training
    # Every pass has a seed of its own, so that a run can go on from any of them.
    generator = torch.Generator().manual_seed((config.seed * 1_000_003 + index) % _MAX_SEED)
    batch = training.make_batch(draws)
    training.adapter.draw_dropout(training.recipe.adapter, generator)
    noise = draw_noise(batch.latents.shape, config.noise_offset, generator)
    timesteps = draw_timesteps(len(batch.latents), model.alphas_cumprod, generator)
    x_t = add_noise(batch.latents, noise, timesteps, model.alphas_cumprod)
    wanted = target(batch.latents, noise, timesteps, model.alphas_cumprod, model.prediction)
    weights = min_snr_weights(timesteps, model.alphas_cumprod, config.min_snr_gamma, model.prediction)

    device, dtype = model.device, training.dtype
    text = _text(model, batch, config, dtype)
    sizes = SizeCond(batch.sizes.pixels.to(device))
    predicted = model.predict(x_t.to(device, dtype), timesteps.to(device), text, sizes)
    return weighted_loss(predicted, wanted.to(device), weights.to(device))


def _text(model: HostModel, batch: Batch, config: TrainingConfig, dtype: torch.dtype) -> TextCond:
    """The cached text, or for a trained text encoder a fresh one with its graph."""
    text = batch.text or model.encode_text(batch.captions, config.clip_skip, grad=True)

    def ready(tensor: Tensor) -> Tensor:
        return tensor.to(model.device, dtype)

    return TextCond(ready(text.context), None if text.pooled is None else ready(text.pooled))


def _peak_bytes(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
