"""The optimizer of a recipe, its parameter groups, and loss scaling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from lib_trainer.config.arguments import parse_arguments
from lib_trainer.config.recipe import TrainingConfig
from lib_trainer.errors import MissingPackage
from lib_trainer.models.device import SAME_IN_32_BIT, available_optimizer
from lib_trainer.models.optimizers import ParameterGroups, averages, build_optimizer, check_options

if TYPE_CHECKING:
    from torch.amp import GradScaler

# Layers, each with its parameters.
LayerParameters = Sequence[Sequence[nn.Parameter]]


def parameter_groups(config: TrainingConfig, unet: LayerParameters, text_encoder: LayerParameters) -> ParameterGroups:
    """One group per learning rate, of the UNet and of the text encoders; one per layer for a fused backward pass."""
    groups: ParameterGroups = []
    for layers, rate in ((unet, config.learning_rate), (text_encoder, config.text_encoder_lr)):
        if config.fused_backward_pass:
            # `FusedBackwardStep` steps one group at a time.
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
        ConfigError: its class does not take the recipe's `optimizer_args`.
    """
    name, notice = available_optimizer(config.optimizer, device)
    optimizer = build_optimizer(name, groups, config.weight_decay, parse_arguments(config.optimizer_args))
    if averages(optimizer):
        optimizer.train()
    return optimizer, notice


def check_optimizer(config: TrainingConfig) -> None:
    """Raises what `make_optimizer` would, before the model is touched."""
    try:
        check_options(config.optimizer, parse_arguments(config.optimizer_args))
    # 8-bit AdamW falls back to AdamW, which computes the same.
    except MissingPackage:
        if config.optimizer not in SAME_IN_32_BIT:
            raise


def make_scaler(dtype: torch.dtype, device: torch.device) -> GradScaler:
    """Scales the loss in fp16, where small gradients would vanish; does nothing for other dtypes.

    Source: Micikevicius et al., "Mixed Precision Training" (2018).
    """
    enabled = dtype == torch.float16
    if not hasattr(torch.amp, "GradScaler"):
        # PyTorch before 2.3, which A1111 allows, has it for CUDA alone.
        return torch.cuda.amp.GradScaler(enabled=enabled and device.type == "cuda")
    return torch.amp.GradScaler(device.type, enabled=enabled)
