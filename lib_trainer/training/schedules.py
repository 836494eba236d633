"""The learning rate over the steps of a run, as a share of the recipe's rate."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from lib_trainer.config.optimization import schedule_options
from lib_trainer.config.recipe import TrainingConfig


def make_schedule(config: TrainingConfig, optimizer: Optimizer, steps: int) -> Any:
    """The schedule of the recipe over `steps` optimizer steps, `lr_warmup` per cent of them rising.

    Groups of text encoders end at `stop_text_encoder_training` per cent of the steps.
    """
    schedule = _make_schedule(config, optimizer, steps)
    if config.stop_text_encoder_training:
        last = math.ceil(steps * config.stop_text_encoder_training / 100)
        for index, group in enumerate(optimizer.param_groups):
            if group.get("of_text"):
                schedule.lr_lambdas[index] = _until(last, schedule.lr_lambdas[index])
    return schedule


def _until(last: int, rate: Callable[[int], float]) -> Callable[[int], float]:
    return lambda step: rate(step) if step < last else 0.0


def _make_schedule(config: TrainingConfig, optimizer: Optimizer, steps: int) -> Any:
    from transformers import optimization

    options = schedule_options(config.lr_scheduler, config.lr_scheduler_args)
    # Called one by one: the function that chooses by name takes no options in the release that A1111 pins.
    warmup, cycles = round(steps * config.lr_warmup / 100), config.lr_scheduler_num_cycles
    match config.lr_scheduler:
        case "constant":
            return optimization.get_constant_schedule_with_warmup(optimizer, warmup)
        case "linear":
            return optimization.get_linear_schedule_with_warmup(optimizer, warmup, steps)
        case "cosine":
            return optimization.get_cosine_schedule_with_warmup(optimizer, warmup, steps)
        case "cosine_with_restarts":
            return optimization.get_cosine_with_hard_restarts_schedule_with_warmup(optimizer, warmup, steps, cycles)
        case "polynomial":
            end, power = min(options["lr_end"], config.learning_rate / 2), config.lr_scheduler_power
            return optimization.get_polynomial_decay_schedule_with_warmup(optimizer, warmup, steps, end, power)
        case "cosine_with_min_lr":
            falls = _cosine_to(options["min_lr_rate"])
        case "rex":
            falls = _rex_to(options["min_lr_ratio"])
        case "warmup_stable_decay":
            decay = options["num_decay_steps"]
            decay_steps = decay if decay >= 1 else decay * steps
            falls = _stable_then(decay_steps / max(1, steps - warmup), _cosine_to(options["min_lr_ratio"]))
    return LambdaLR(optimizer, lambda step: step / warmup if step < warmup else falls(_progress(step, warmup, steps)))


def _progress(step: int, warmup: int, steps: int) -> float:
    return min(1.0, (step - warmup) / max(1, steps - warmup))


def _cosine_to(end: float) -> Callable[[float], float]:
    """Half a cosine from 1 to `end` (Loshchilov & Hutter, 2017)."""
    return lambda done: end + (1 - end) * 0.5 * (1 + math.cos(math.pi * done))


def _rex_to(end: float) -> Callable[[float], float]:
    """(1 − z)/(½ + ½(1 − z)), from 1 to `end` (Chen et al., "REX: Revisiting Budgeted Training", 2021)."""
    return lambda done: end + (1 - end) * (1 - done) / (1 - 0.5 * done)


def _stable_then(share: float, falls: Callable[[float], float]) -> Callable[[float], float]:
    """1 until the last `share` of the steps after the warm-up, then down (Hu et al., "MiniCPM", 2024)."""
    share = min(1.0, share)
    return lambda done: 1.0 if done <= 1 - share else falls((done - 1 + share) / share)
