"""Whether a plan fits, on a real GPU: training steps under the plan for a smaller one, with the allocator limited to
that much memory."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import torch

from benchmarks.plans import RECIPES
from benchmarks.report import say, table
from benchmarks.simulation.simulate import batch_of
from benchmarks.simulation.unet import UNetAlone, build_unet, pooled_width
from lib_trainer.adapter.attach import attached, new_adapter
from lib_trainer.cli.train import open_recipe
from lib_trainer.config.recipe import Recipe
from lib_trainer.dataset.sampler import Schedule
from lib_trainer.dataset.samples import Sample
from lib_trainer.dataset.scan import Scan
from lib_trainer.events import Step
from lib_trainer.memory.plan import CONTEXT_BYTES, GIB, Budget, Plan
from lib_trainer.memory.planner import describe_savings, plan_for_card
from lib_trainer.models.families import FAMILIES
from lib_trainer.training.loop import Training, fit

_STEPS = 6


@dataclass(frozen=True)
class OnCard:
    """Memory and time of some steps.

    Attributes:
        plan: of the steps.
        allocated_bytes: peak of tensors.
        reserved_bytes: peak of the allocator, fragmentation included.
        step_s: median of the steps but the first; None if memory ran out.
    """

    plan: Plan
    allocated_bytes: int
    reserved_bytes: int
    step_s: float | None


def measure_on_card(family: str, sizes_px: Sequence[int], budget_gb: float) -> Iterator[OnCard]:
    """The shipped recipes at each size, each in a process of its own."""
    for recipe in RECIPES.values():
        for size_px in sizes_px:
            with get_context("spawn").Pool(1) as pool:
                yield pool.apply(_measured, (family, recipe, size_px, budget_gb))


def _measured(family: str, recipe: str, size_px: int, budget_gb: float) -> OnCard:
    budget = Budget.of_card(budget_gb)
    plan = plan_for_card(FAMILIES[family], open_recipe(recipe).recipe, size_px, size_px, budget)
    step_s = None
    with suppress(torch.cuda.OutOfMemoryError):
        step_s = statistics.median(step.seconds for step in steps_on_card(plan, _STEPS)[1:])
    return OnCard(plan, torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved(), step_s)


def steps_on_card(plan: Plan, count: int) -> list[Step]:
    """Steps of random weights under the plan, with the optimizer.

    The allocator is limited to the plan's budget without the CUDA context.
    """
    device, work = torch.device("cuda"), plan.work
    total = torch.cuda.get_device_properties(device).total_memory
    # Drawn where that is quick, and kept where a WebUI keeps them.
    with device:
        unet = build_unet(work.shape, work.compute)
    unet.cpu()
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(min(1.0, (plan.budget.total_bytes - CONTEXT_BYTES) / total))
    recipe = replace(plan.recipe, training=replace(plan.recipe.training, max_train_steps=count))
    batch = batch_of(plan, pooled_width(work.shape))
    try:
        with ExitStack() as undo:
            model = UNetAlone(unet, device, undo)
            model.prepare_training(plan.placement, text_encoder=False)
            layers = model.adaptable_layers()
            adapter = new_adapter(layers, recipe.adapter, 0)
            with attached(adapter, layers, model.read_weight):
                events = list(fit(Training(model, adapter, recipe, _schedule(recipe), lambda _draws: batch)))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    return [event for event in events if isinstance(event, Step)]


def _schedule(recipe: Recipe) -> Schedule:
    """One picture, again and again."""
    width_px, height_px = recipe.dataset.resolution_px
    return Schedule(Scan((Sample(Path("0.png"), "", 1000, width_px, height_px, True),), (), ""), recipe)


def report_on_card(found: Sequence[OnCard]) -> None:
    """Markdown, a row a recipe and size."""
    rows = []
    for item in found:
        work, reserve = item.plan.work, item.plan.budget.reserve_bytes
        sizes = (item.plan.total_bytes, item.allocated_bytes + reserve, item.reserved_bytes + CONTEXT_BYTES)
        rows.append(
            [
                work.family.label,
                work.recipe.adapter.algo,
                f"{work.width_px}×{work.height_px}",
                "; ".join(describe_savings(item.plan)) or "none",
                *(f"{size / GIB:.2f} GiB" for size in sizes),
                "runs out" if item.step_s is None else f"{item.step_s:.3f} s",
            ]
        )
    say(table(["model", "recipe", "size", "plan", "predicted", "tensors + reserve", "taken", "a step"], rows))
