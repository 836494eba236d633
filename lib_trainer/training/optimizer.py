"""Optimizers, LR schedules and loss scaling, all from torch, transformers, bitsandbytes and prodigyopt."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from lib_trainer.config.recipe import TrainingConfig
from lib_trainer.errors import MissingPackage
from lib_trainer.models.device import available_optimizer

if TYPE_CHECKING:
    from torch.amp import GradScaler

ParameterGroups = list[dict[str, Any]]
# Layers, each with its parameters.
LayerParameters = Sequence[Sequence[nn.Parameter]]


def parameter_groups(config: TrainingConfig, unet: LayerParameters, text_encoder: LayerParameters) -> ParameterGroups:
    """One group per learning rate, of the UNet and of the text encoders; one per layer for a fused backward pass."""
    groups: ParameterGroups = []
    for layers, rate in ((unet, config.learning_rate), (text_encoder, config.text_encoder_lr)):
        if config.fused_backward_pass:
            groups += [{"params": list(layer), "lr": rate} for layer in layers]
        elif layers:
            groups.append({"params": [parameter for layer in layers for parameter in layer], "lr": rate})
    return groups


def make_optimizer(
    config: TrainingConfig, groups: ParameterGroups, device: torch.device
) -> tuple[torch.optim.Optimizer, str]:
    """The recipe's optimizer, and a sentence for the person if another replaces it ("" if not).

    Raises:
        MissingPackage: the optimizer's library is not installed and no other computes the same.
    """
    name, notice = available_optimizer(config.optimizer, device)
    made = {"AdamW": _adamw, "AdamW8bit": _adamw_8bit, "Prodigy": _prodigy, "Adafactor": _adafactor}[name]
    return made(groups, config), notice


def _adamw(groups: ParameterGroups, config: TrainingConfig) -> torch.optim.Optimizer:
    # On a GPU the default implementation copies all parameters at once for a moment; the fused one does not.
    on_gpu = groups[0]["params"][0].is_cuda
    return torch.optim.AdamW(groups, weight_decay=config.weight_decay, fused=True if on_gpu else None)


def _adamw_8bit(groups: ParameterGroups, config: TrainingConfig) -> torch.optim.Optimizer:
    from bitsandbytes.optim import AdamW8bit

    return AdamW8bit(groups, weight_decay=config.weight_decay)


def _prodigy(groups: ParameterGroups, config: TrainingConfig) -> torch.optim.Optimizer:
    if not find_spec("prodigyopt"):
        raise MissingPackage("prodigyopt", "The optimizer Prodigy")
    from prodigyopt import Prodigy

    # As its authors advise for diffusion models (https://github.com/konstmish/prodigy).
    return Prodigy(groups, weight_decay=config.weight_decay, use_bias_correction=True, safeguard_warmup=True)


def _adafactor(groups: ParameterGroups, config: TrainingConfig) -> torch.optim.Optimizer:
    from transformers.optimization import Adafactor

    # The recipe gives the learning rate, so Adafactor must not derive its own.
    options = {"scale_parameter": False, "relative_step": False, "warmup_init": False}
    return Adafactor(groups, weight_decay=config.weight_decay, **options)


def make_schedule(config: TrainingConfig, optimizer: torch.optim.Optimizer, steps: int) -> Any:
    """The learning rate over `steps` optimizer steps, the first `lr_warmup` per cent of them rising."""
    from transformers import optimization

    # Not `get_scheduler`: in the transformers release that A1111 pins it takes no options.
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


def make_scaler(dtype: torch.dtype, device: torch.device) -> GradScaler:
    """Scales the loss in fp16, where small gradients would vanish; does nothing for other dtypes.

    Source: Micikevicius et al., "Mixed Precision Training" (2018).
    """
    enabled = dtype == torch.float16
    if not hasattr(torch.amp, "GradScaler"):
        # PyTorch before 2.3, which A1111 allows, has it for CUDA alone.
        return torch.cuda.amp.GradScaler(enabled=enabled and device.type == "cuda")
    return torch.amp.GradScaler(device.type, enabled=enabled)
