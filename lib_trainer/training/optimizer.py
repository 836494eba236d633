"""The optimizer of a recipe, and its parameter groups."""

from __future__ import annotations

from typing import Any

import torch

from lib_trainer.adapter.attach import Adapter
from lib_trainer.adapter.layer_rules import layer_rule
from lib_trainer.config.arguments import parse_arguments
from lib_trainer.config.recipe import Recipe, TrainingConfig
from lib_trainer.errors import ConfigError, MissingPackage
from lib_trainer.models.device import SAME_IN_32_BIT, available_optimizer
from lib_trainer.models.optimizers import ParameterGroups, averages, build_optimizer, canonical_name, check_options


def parameter_groups(recipe: Recipe, adapter: Adapter) -> ParameterGroups:
    """One group per learning rate of the UNet and of the text encoders; one or two per layer for a fused backward pass.

    The embedding has a group of its own.

    LoRA+ gives the factors that begin at zero a rate of their own (Hayou et al., 2024).
    """
    training = recipe.training
    fused, stops = training.fused_backward_pass, training.stop_text_encoder_training > 0
    groups: dict[tuple[Any, ...], dict[str, Any]] = {}
    for name, module in adapter.layers.items():
        of_text = name.startswith("lora_te")
        # A file that is continued may hold layers that a new adapter of this recipe would not have.
        rule = layer_rule(name, recipe.adapter, wide=False)
        rate = training.rate_of(name) * rule.weight if rule.rate is None else rule.rate
        own = training.loraplus_text_encoder_lr_ratio if of_text else training.loraplus_unet_lr_ratio
        plus = module.zero_factors if (ratio := own or training.loraplus_lr_ratio) else []
        others = [parameter for parameter in module.parameters() if not any(parameter is one for one in plus)]
        for parameters, own_rate, kind in ((others, rate, ""), (plus, rate * ratio, "plus")):
            if not parameters:
                continue
            # `FusedBackwardStep` steps one group at a time.
            group = groups.setdefault((kind, name if fused else (of_text, own_rate)), {"params": [], "lr": own_rate})
            group["params"] += parameters
            if stops:
                group["of_text"] = of_text
    if adapter.embedding:
        embedding = {"params": list(adapter.embedding.parameters()), "lr": recipe.embedding.embedding_lr}
        groups["embedding", ""] = {**embedding, **({"of_text": False} if stops else {})}
    return list(groups.values())


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
        if canonical_name(config.optimizer) not in SAME_IN_32_BIT:
            raise


def check_recipe(recipe: Recipe) -> None:
    """Raises ConfigError with every problem of the recipe's values, what its optimizer does not take among them."""
    problems: dict[str, str] = {}
    try:
        recipe.check()
    except ConfigError as error:
        problems |= error.problems
    # Arguments that cannot be read are said already.
    if "optimizer_args" not in problems:
        try:
            check_optimizer(recipe.training)
        except ConfigError as error:
            problems |= error.problems
    if problems:
        raise ConfigError(problems)
