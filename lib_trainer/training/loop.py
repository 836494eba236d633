"""The training loop: batches in, steps out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count, islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lib_trainer.adapter.attach import Adapter
from lib_trainer.config import Recipe, TrainingConfig
from lib_trainer.dataset.batches import Batch
from lib_trainer.dataset.schedule import Draw, Schedule
from lib_trainer.errors import UserError
from lib_trainer.events import Notice, Step
from lib_trainer.host.base import HostModel, SizeCond, TextCond
from lib_trainer.training.diffusion import add_noise, draw_noise, draw_timesteps, min_snr_weights, target, weighted_loss
from lib_trainer.training.optimizer import compute_dtype, make_optimizer, make_schedule, parameter_groups

if TYPE_CHECKING:
    from torch.amp import GradScaler

MakeBatch = Callable[[tuple[Draw, ...]], Batch]
_MAX_SEED = 2**63


class Diverged(UserError):
    """The loss or a gradient is no number any more; the adapter still holds the weights of the step before."""

    def __init__(self, step: int) -> None:
        super().__init__(
            f"Training broke down at step {step}: the loss is not a number any more.",
            "Lower the learning rate, or compute in bf16 or fp32.",
        )


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
        self.adapter.to(device)
        groups = parameter_groups(
            config, self.adapter.parameters_of("lora_unet_"), self.adapter.parameters_of("lora_te")
        )
        self.optimizer, self.notice = make_optimizer(config, groups, device)
        self.rate = make_schedule(config, self.optimizer, self.schedule.steps)
        self.scaler: GradScaler = torch.amp.GradScaler(device.type, enabled=self.dtype == torch.float16)


def fit(training: Training) -> Iterator[Step | Notice]:
    """Takes every optimizer step of the schedule, and says so after each.

    Raises:
        Diverged: before a step that would spoil the weights.
    """
    if training.notice:
        yield Notice(training.notice)
    schedule = training.schedule
    index = 0
    started = time.perf_counter()
    for number, (epoch, passes) in enumerate(islice(_steps(schedule), schedule.steps), start=1):
        loss = 0.0
        for draws in passes:
            loss += _backward(training, draws, index, len(passes))
            index += 1
        learning_rate = training.optimizer.param_groups[0]["lr"]
        if not math.isfinite(loss):
            raise Diverged(number)
        _take_step(training, number)
        now = time.perf_counter()
        yield Step(
            number, schedule.steps, epoch, loss, learning_rate, now - started, _peak_bytes(training.model.device)
        )
        started = time.perf_counter()


def _steps(schedule: Schedule) -> Iterator[tuple[int, list[tuple[Draw, ...]]]]:
    """(epoch, the passes of one optimizer step) for ever; the last step of an epoch may have fewer."""
    size = schedule.recipe.training.gradient_accumulation_steps
    for epoch in count(1):
        batches = schedule.epoch(epoch)
        for start in range(0, len(batches), size):
            yield epoch, batches[start : start + size]


def _backward(training: Training, draws: tuple[Draw, ...], index: int, passes: int) -> float:
    """Adds the gradients of one of the step's `passes`; returns its share of the step's loss."""
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
    loss = weighted_loss(predicted, wanted.to(device), weights.to(device))
    share = loss / passes
    training.scaler.scale(share).backward()
    return float(share.detach())


def _text(model: HostModel, batch: Batch, config: TrainingConfig, dtype: torch.dtype) -> TextCond:
    """The cached text, or for a trained text encoder a fresh one with its graph."""
    text = batch.text or model.encode_text(batch.captions, config.clip_skip, grad=True)

    def ready(tensor: Tensor) -> Tensor:
        return tensor.to(model.device, dtype)

    return TextCond(ready(text.context), None if text.pooled is None else ready(text.pooled))


def _take_step(training: Training, number: int) -> None:
    optimizer, scaler, config = training.optimizer, training.scaler, training.recipe.training
    scaler.unscale_(optimizer)
    limit = config.max_grad_norm or math.inf
    norm = nn.utils.clip_grad_norm_(list(training.adapter.parameters()), limit)
    # Loss scaling meets infinite gradients by design: it skips the step and scales less.
    if not scaler.is_enabled() and not math.isfinite(float(norm)):
        raise Diverged(number)
    scale: Any = scaler.get_scale()
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad(set_to_none=True)
    if scaler.get_scale() >= scale:
        training.rate.step()


def _peak_bytes(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
