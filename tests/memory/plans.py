"""Plans for full-sized models."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from lib_trainer.config.recipe import AdapterConfig, Recipe
from lib_trainer.memory.estimate import Work
from lib_trainer.memory.plan import Budget, Plan, make_plan
from lib_trainer.models.families import SD1, Family

FACE = AdapterConfig(algo="loha", network_dim=32, network_alpha=16, conv_dim=8, conv_alpha=4, use_tucker=True)
STYLE = AdapterConfig(algo="lokr", network_dim=64, network_alpha=64, conv_dim=64, conv_alpha=64, factor=8)


def work_of(
    family: Family = SD1,
    size_px: int = 512,
    adapter: AdapterConfig = FACE,
    compute: torch.dtype = torch.bfloat16,
    weight_bytes: float = 2,
    **training: Any,
) -> Work:
    recipe = Recipe(adapter=adapter)
    recipe = replace(recipe, training=replace(recipe.training, **training))
    optimizer = recipe.training.optimizer
    return Work(family, family.shape, recipe, optimizer, size_px, size_px, weight_bytes, compute)


CARD_8GB = Budget.of_card(8)


def plan_of(family: Family = SD1, size_px: int = 512, budget: Budget | None = CARD_8GB, **settings: Any) -> Plan:
    return make_plan(work_of(family, size_px, **settings), budget)
