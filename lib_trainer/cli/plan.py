"""`plan`: the VRAM that a recipe needs, and how it is made to fit."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from lib_trainer.cli.output import Answer
from lib_trainer.cli.recipe import open_recipe, parse_settings
from lib_trainer.config.recipe import Recipe
from lib_trainer.errors import UserError
from lib_trainer.memory.plan import DESKTOP_BYTES, GIB, Budget, Plan
from lib_trainer.memory.planner import describe_savings, plan_for_card, require_fit
from lib_trainer.models.families import FAMILIES

_BUDGET = re.compile(r"(\d+(?:\.\d+)?)\s*(?:GB|GiB|G)?", re.IGNORECASE)
_LARGEST_CARD_GB = 1024


def run_plan(options: argparse.Namespace) -> Answer:
    """The plan of one recipe.

    Raises:
        UserError: for an invalid budget, or one that no plan can meet.
    """
    budget = Budget.of_card(parse_budget(options.budget))
    if not options.recipe:
        raise UserError("The recipe is missing.", "Name a recipe's .json file, or a shipped one.")
    recipe = open_recipe(options.recipe).complete(parse_settings(options.set), needs_name=False)
    width_px, height_px = _size(options.size) if options.size else recipe.dataset.resolution_px
    plan = plan_for_card(FAMILIES[options.family], recipe, width_px, height_px, budget, *_lora_files(recipe))
    # A plan that does not fit is an error with advice, not an answer.
    require_fit(plan)
    return Answer(plan_values(plan), _lines(plan))


def _lora_files(recipe: Recipe) -> tuple[Path | None, list[Path]]:
    """The file whose layers and ranks are trained, None where the recipe's are; and those of the frozen LoRAs.

    Raises:
        UserError: a LoRA is not given as the path of a file; a plan knows no folder of LoRAs.
    """
    start = recipe.start
    named = [start.network_weights] if start.dim_from_weights else []
    for name in (*named, *(name for name, _ in start.base_loras)):
        if not Path(name).expanduser().is_file():
            raise UserError(f"There is no file {name}.", "A plan knows no folder of LoRAs: name the path of the file.")
    paths = [Path(name).expanduser() for name in named]
    return paths[0] if paths else None, [Path(name).expanduser() for name, _ in start.base_loras]


def parse_budget(text: str) -> float:
    """`8GB` -> 8.0, the size of a card. Raises UserError for an invalid size."""
    match = _BUDGET.fullmatch(text.strip())
    size = float(match[1]) if match else 0.0
    # A card has to hold the desktop's share before anything of ours.
    if not DESKTOP_BYTES / GIB < size <= _LARGEST_CARD_GB:
        raise UserError(f"{text!r} is not a valid VRAM size.", "Write it like 8GB.")
    return size


def plan_values(plan: Plan) -> dict[str, Any]:
    savings = plan.savings
    return {
        "fits": plan.fits,
        "predicted_bytes": plan.total_bytes,
        "budget_bytes": plan.budget.total_bytes if plan.budget else None,
        "parts": plan.named_parts,
        "recomputed_blocks": savings.recomputed,
        "blocks": plan.blocks,
        "fused_backward_pass": savings.fused,
        "int8_base": savings.int8_base,
        "streamed": savings.streamed,
        "optimizer": savings.optimizer,
        "train_batch_size": savings.batch,
        "gradient_accumulation_steps": plan.recipe.training.gradient_accumulation_steps,
    }


def _lines(plan: Plan) -> tuple[str, ...]:
    work = plan.work
    width = max(len(name) for name in plan.named_parts)
    lines = [f"{work.family.label} at {work.width_px}×{work.height_px} px:"]
    lines += [f"  {name.ljust(width)}  {size / GIB:5.2f} GB" for name, size in plan.named_parts.items()]
    budget = f" of {plan.budget.total_bytes / GIB:.2f} GB" if plan.budget else ""
    lines.append(f"  {'predicted'.ljust(width)}  {plan.total_bytes / GIB:5.2f} GB{budget}")
    return (*lines, *(f"{saving[:1].upper()}{saving[1:]}." for saving in describe_savings(plan)))


def _size(text: str) -> tuple[int, int]:
    """`1024` or `896x768`."""
    sides = text.lower().split("x")
    if len(sides) not in (1, 2) or not all(side.isdigit() and 64 <= int(side) <= 8192 for side in sides):
        raise UserError(f"{text!r} is not a size.", "Write it like 1024 or 896x768, in px.")
    return int(sides[0]), int(sides[-1])
