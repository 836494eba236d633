"""The shipped recipes' memory plans for a GPU, beside a simulated step and what its allocator would hold."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from tqdm import tqdm

from benchmarks.report import say
from benchmarks.simulation.cuda_allocator import AllocatorFull, CachingAllocator
from benchmarks.simulation.cuda_peak import ReservedPeak
from benchmarks.simulation.simulate import simulate
from benchmarks.simulation.unet import pooled_width, simulated_unet
from lib_trainer.cli.recipe import open_recipe
from lib_trainer.memory.plan import CONTEXT_BYTES, GIB, Budget, Plan
from lib_trainer.memory.planner import describe_savings, plan_for_card
from lib_trainer.models.families import SD1, SDXL, Family

# Both recipes at these sizes make the table.
RECIPES = {"LoHa": "loha_face_config_8gb", "LoKr": "lokr_style_config_8gb"}
SIZES_PX: dict[Family, tuple[int, ...]] = {SD1: (512, 768, 896), SDXL: (768, 896, 1024)}


@dataclass(frozen=True)
class Simulated:
    """Two steps that were followed on tensors without contents.

    Attributes:
        total_bytes: the most that tensors took at once, with the plan's reserve.
        held_bytes: peak of the allocator and the CUDA context, with fragmentation and workspaces; None if the
            allocator ran out.
    """

    total_bytes: int
    held_bytes: int | None


def simulate_plan(plan: Plan) -> Simulated:
    """Two steps of the plan, on a GPU of its budget."""
    shape, allocator = plan.work.shape, CachingAllocator(plan.budget.total_bytes - CONTEXT_BYTES)
    peak, held = ReservedPeak(allocator), None
    with simulated_unet(shape, plan.work.compute) as model, suppress(AllocatorFull):
        simulate(model, plan, pooled_width(shape), peak)
        held = allocator.peak_bytes + CONTEXT_BYTES
    return Simulated(peak.peak + plan.budget.reserve_bytes, held)


def simulated_plans(budget_gb: float) -> Iterator[tuple[str, Plan, Simulated]]:
    """(recipe's label, plan, simulated) of each recipe, family and size."""
    budget = Budget.of_card(budget_gb)
    sizes = [(family, size) for family, sizes in SIZES_PX.items() for size in sizes]
    rows = [(label, *size) for label in RECIPES for size in sizes]
    for label, family, size_px in tqdm(rows, desc="simulating"):
        plan = plan_for_card(family, open_recipe(RECIPES[label]).recipe, size_px, size_px, budget)
        yield label, plan, simulate_plan(plan)


def report_plans(budget_gb: float) -> None:
    """Prints Markdown, a row a recipe and size."""
    say("| model | recipe | size | plan | predicted | simulated | held |")
    say("|---|---|---|---|---|---|---|")
    for label, plan, simulated in simulated_plans(budget_gb):
        work, held = plan.work, simulated.held_bytes
        savings = "; ".join(describe_savings(plan)) or "none"
        say(
            f"| {work.family.label} | {label} | {work.width_px}×{work.height_px} | {savings} |"
            f" {plan.total_bytes / GIB:.2f} GiB | {simulated.total_bytes / GIB:.2f} GiB |"
            f" {'runs out' if held is None else f'{held / GIB:.2f} GiB'} |"
        )
