"""`plan`: what a recipe will take of a graphics card, and how it is made to fit."""

from __future__ import annotations

import argparse
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from lib_trainer.cli.output import Answer
from lib_trainer.cli.train import open_recipe, parse_settings
from lib_trainer.errors import UserError
from lib_trainer.families import FAMILIES, SD1, SDXL, Family
from lib_trainer.memory.allocator import AllocatorFull, CachingAllocator
from lib_trainer.memory.plan import CONTEXT_BYTES, DESKTOP_BYTES, GIB, Plan, Room
from lib_trainer.planning import describe_savings, plan_for_card, require_fit

# Both recipes at these sizes make the table.
TABLE_RECIPES = ("loha_face_config_8gb", "lokr_style_config_8gb")
TABLE_SIZES_PX: dict[Family, tuple[int, ...]] = {SD1: (512, 768, 896), SDXL: (768, 896, 1024)}
_BUDGET = re.compile(r"(\d+(?:\.\d+)?)\s*(?:GB|GiB|G)?", re.IGNORECASE)
_LARGEST_CARD_GB = 1024


def run_plan(given: argparse.Namespace) -> Answer:
    """The plan of one recipe, or with `--table` those of the shipped ones.

    Raises:
        UserError: for a budget that is none, or that no plan can meet.
    """
    room = Room.of_card(parse_budget(given.budget))
    if given.table:
        return _table(room)
    if not given.recipe:
        raise UserError("There is no recipe to plan for.", "Name a recipe's .json file, or a shipped one.")
    recipe = open_recipe(given.recipe).recipe.with_values(parse_settings(given.set)).check(needs_name=False)
    width_px, height_px = _size(given.size) if given.size else recipe.dataset.resolution_px
    plan = plan_for_card(FAMILIES[given.family], recipe, width_px, height_px, room)
    require_fit(plan)
    simulated = simulate_plan(plan) if given.simulate else None
    return Answer(_values(plan, simulated), _lines(plan, simulated))


def parse_budget(text: str) -> float:
    """`8GB` -> 8.0, the size of a card. Raises UserError for what is no card."""
    match = _BUDGET.fullmatch(text.strip())
    size = float(match[1]) if match else 0.0
    if not DESKTOP_BYTES / GIB < size <= _LARGEST_CARD_GB:
        raise UserError(f"{text!r} is no graphics card's memory.", "Write it like 8GB.")
    return size


@dataclass(frozen=True)
class Simulated:
    """Two steps that were followed on tensors without contents.

    Attributes:
        total_bytes: the most that tensors took at once, with the plan's reserve.
        held_bytes: the most that the card's allocator and the driver's context held, gaps and workspaces included; None
            if the allocator had no room left for a step.
    """

    total_bytes: int
    held_bytes: int | None


def simulate_plan(plan: Plan) -> Simulated:
    """The plan's steps on a card of its room."""
    # None of it is needed for a plan alone, and it takes long to import.
    from lib_trainer.host.standalone_empty import empty_model, pooled_width
    from lib_trainer.memory.reserved import ReservedPeak
    from lib_trainer.simulation import simulate

    shape, allocator = plan.work.shape, CachingAllocator(plan.room.total_bytes - CONTEXT_BYTES)
    peak, held = ReservedPeak(allocator), None
    with empty_model(shape, plan.work.compute) as model, suppress(AllocatorFull):
        simulate(model, plan, pooled_width(shape), peak)
        held = allocator.peak_bytes + CONTEXT_BYTES
    return Simulated(peak.peak + plan.room.reserve_bytes, held)


def _values(plan: Plan, simulated: Simulated | None) -> dict[str, Any]:
    savings = plan.savings
    return {
        "fits": plan.fits,
        "predicted_bytes": plan.total_bytes,
        "room_bytes": plan.room.total_bytes if plan.room else None,
        "parts": plan.named_parts,
        "recomputed_blocks": savings.recomputed,
        "blocks": plan.blocks,
        "fused_backward_pass": savings.fused,
        "int8_base": savings.int8_base,
        "streamed": savings.streamed,
        "optimizer": savings.optimizer,
        "train_batch_size": savings.batch,
        "gradient_accumulation_steps": plan.recipe.training.gradient_accumulation_steps,
        **({} if simulated is None else {"simulated_bytes": simulated.total_bytes, "held_bytes": simulated.held_bytes}),
    }


def _lines(plan: Plan, simulated: Simulated | None) -> tuple[str, ...]:
    work = plan.work
    width = max(len(name) for name in plan.named_parts)
    lines = [f"{work.family.label} at {work.width_px}×{work.height_px} px:"]
    lines += [f"  {name.ljust(width)}  {size / GIB:5.2f} GB" for name, size in plan.named_parts.items()]
    room = f" of {plan.room.total_bytes / GIB:.2f} GB" if plan.room else ""
    lines.append(f"  {'predicted'.ljust(width)}  {plan.total_bytes / GIB:5.2f} GB{room}")
    if simulated is not None:
        lines.append(f"  {'simulated'.ljust(width)}  {simulated.total_bytes / GIB:5.2f} GB")
        lines.append(f"  {'held'.ljust(width)}  {_held(simulated)}")
    return (*lines, *(f"{saving[:1].upper()}{saving[1:]}." for saving in describe_savings(plan)))


def _held(simulated: Simulated) -> str:
    return "runs out" if simulated.held_bytes is None else f"{simulated.held_bytes / GIB:.2f} GiB"


def _table(room: Room) -> Answer:
    """Markdown, a row a recipe and size."""
    sizes = [(family, size) for family, sizes in TABLE_SIZES_PX.items() for size in sizes]
    rows = [(name, *size) for name in TABLE_RECIPES for size in sizes]
    lines = ["| model | recipe | size | plan | predicted | simulated | held |", "|---|---|---|---|---|---|---|"]
    values = []
    for name, family, size_px in tqdm(rows, desc="simulating"):
        plan = plan_for_card(family, open_recipe(name).recipe, size_px, size_px, room)
        simulated = simulate_plan(plan)
        algo = {"loha": "LoHa", "lokr": "LoKr"}[plan.work.recipe.adapter.algo]
        savings = "; ".join(describe_savings(plan)) or "nothing is saved"
        lines.append(
            f"| {family.label} | {algo} | {size_px}×{size_px} | {savings} |"
            f" {plan.total_bytes / GIB:.2f} GiB | {simulated.total_bytes / GIB:.2f} GiB | {_held(simulated)} |"
        )
        values.append({"family": family.key, "recipe": name, "size_px": size_px, **_values(plan, simulated)})
    return Answer({"plans": values}, tuple(lines))


def _size(text: str) -> tuple[int, int]:
    """`1024` or `896x768`."""
    sides = text.lower().split("x")
    if len(sides) not in (1, 2) or not all(side.isdigit() and 64 <= int(side) <= 8192 for side in sides):
        raise UserError(f"{text!r} is no size.", "Write it like 1024 or 896x768, in px.")
    return int(sides[0]), int(sides[-1])

