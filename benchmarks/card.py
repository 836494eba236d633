"""What a GPU of that size does, ours and theirs: steps a second, memory, and how soon the first step comes.

On a larger GPU the allocator is limited to what a smaller one has. Ours follows the plan for it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import torch

from benchmarks.card_load import gib, limit_allocator
from benchmarks.cases import Compute, Implementation
from benchmarks.plans import RECIPES
from benchmarks.processes import workers
from benchmarks.report import say, table
from benchmarks.simulation.simulate import batch_of
from benchmarks.simulation.unet import UNetAlone, build_unet, pooled_width
from lib_trainer.adapter.attach import attached, new_adapter
from lib_trainer.cli.recipe import open_recipe
from lib_trainer.config.recipe import Recipe
from lib_trainer.dataset.sampler import Schedule
from lib_trainer.dataset.samples import Sample
from lib_trainer.dataset.scan import Scan
from lib_trainer.events import Event, Step
from lib_trainer.memory.plan import CONTEXT_BYTES, Budget, Plan
from lib_trainer.memory.planner import describe_savings, plan_for_card
from lib_trainer.models.families import FAMILIES
from lib_trainer.training.loop import Training, fit

_STEPS = 6
_HEAD = [
    "who",
    "adapter",
    "size",
    "saves memory by",
    "it/s",
    "reserved",
    "first step",
    "predicted",
    "tensors + reserve",
]


@dataclass(frozen=True)
class OnCard:
    """Memory and time of some steps.

    Attributes:
        who: took them.
        adapter: its algo.
        size_px: side of the picture.
        how: what saves memory.
        reserved_bytes: peak of the allocator, fragmentation included.
        first_s: from a loaded checkpoint to the end of the first step; None if memory ran out.
        step_s: median of the steps but the first; None if memory ran out.
        predicted_bytes, allocated_bytes: of our plan, and peak of its tensors with the reserve; 0 for others.
    """

    who: str
    adapter: str
    size_px: int
    how: str
    reserved_bytes: int
    first_s: float | None
    step_s: float | None
    predicted_bytes: int = 0
    allocated_bytes: int = 0


def measure_on_card(family: str, sizes_px: Sequence[int], budget_gb: float) -> Iterator[OnCard]:
    """The shipped recipes at each size, each in a process of its own."""
    for recipe in RECIPES.values():
        for size_px in sizes_px:
            with get_context("spawn").Pool(1) as pool:
                yield pool.apply(_measured, (family, recipe, size_px, budget_gb))


def _measured(family: str, recipe: str, size_px: int, budget_gb: float) -> OnCard:
    budget = Budget.of_card(budget_gb)
    plan = plan_for_card(FAMILIES[family], open_recipe(recipe).recipe, size_px, size_px, budget)
    first_s, step_s = None, None
    with suppress(torch.cuda.OutOfMemoryError):
        first_s, seconds = timed_on_card(plan, _STEPS)
        step_s = statistics.median(seconds)
    how = "; ".join(describe_savings(plan)) or "none"
    tensors = torch.cuda.max_memory_allocated() + budget.reserve_bytes
    reserved, algo = torch.cuda.max_memory_reserved(), plan.work.recipe.adapter.algo
    return OnCard("ours", algo, size_px, how, reserved, first_s, step_s, plan.total_bytes, tensors)


def theirs_on_card(
    family: str, sizes_px: Sequence[int], budget_gb: float, theirs: Sequence[Implementation], folder: Path, threads: int
) -> Iterator[OnCard]:
    """The same adapters by others, without a plan: gradient checkpointing everywhere, and bitsandbytes' 8-bit AdamW."""
    compute = asdict(Compute.of_this_machine())
    task = {"load": "card", "family": family, "batch": 1, "compute": compute}
    task["budget_bytes"] = Budget.of_card(budget_gb).total_bytes
    for who in theirs:
        with workers([who], folder, threads) as (worker,):
            for recipe in RECIPES.values():
                adapter = open_recipe(recipe).recipe.adapter
                for size_px in sizes_px:
                    with worker.loaded(**task, size_px=size_px, adapter=asdict(adapter)):
                        found = worker.ask(steps=_STEPS)
                    yield OnCard(who.name, adapter.algo, size_px, "checkpointing, AdamW8bit", **found)


def timed_on_card(plan: Plan, count: int) -> tuple[float, list[float]]:
    """(seconds to the end of the first step, seconds of each other step)."""
    with _ready_on_card(plan, count) as (started, events):
        steps = (event for event in events if isinstance(event, Step))
        next(steps)
        return time.perf_counter() - started, [step.seconds for step in steps]


def steps_on_card(plan: Plan, count: int) -> list[Step]:
    """Steps of random weights under the plan, with the optimizer."""
    with _ready_on_card(plan, count) as (_, events):
        return [event for event in events if isinstance(event, Step)]


@contextmanager
def _ready_on_card(plan: Plan, count: int) -> Iterator[tuple[float, Iterator[Event]]]:
    """The clock when the checkpoint was loaded, and the run's events.

    The allocator is limited to the plan's budget without the CUDA context.
    """
    device, work = torch.device("cuda"), plan.work
    # Drawn where that is quick, and kept where a WebUI keeps them.
    with device:
        unet = build_unet(work.shape, work.compute)
    unet.cpu()
    torch.cuda.empty_cache()
    limit_allocator(plan.budget.total_bytes)
    recipe = replace(plan.recipe, training=replace(plan.recipe.training, max_train_steps=count))
    batch = batch_of(plan, pooled_width(work.shape))
    started = time.perf_counter()
    try:
        with ExitStack() as undo:
            model = UNetAlone(unet, device, undo)
            model.prepare_training(plan.placement, text_encoder=False)
            layers = model.adaptable_layers()
            adapter = new_adapter(layers, recipe.adapter, 0)
            with attached(adapter, layers, model.read_weight):
                yield started, fit(Training(model, adapter, recipe, _schedule(recipe), lambda _draws: batch))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def _schedule(recipe: Recipe) -> Schedule:
    """One picture, again and again."""
    width_px, height_px = recipe.dataset.resolution_px
    return Schedule(Scan((Sample(Path("0.png"), "", 1000, width_px, height_px, True),), (), ""), recipe)


def report_on_card(found: Sequence[OnCard]) -> None:
    """Markdown, a row for each recipe, size and side."""
    rows = [
        [
            item.who,
            item.adapter,
            f"{item.size_px}×{item.size_px}",
            item.how,
            "runs out" if item.step_s is None else f"{1 / item.step_s:.2f}",
            gib(item.reserved_bytes + CONTEXT_BYTES),
            "runs out" if item.first_s is None else f"{item.first_s:.1f} s",
            gib(item.predicted_bytes) if item.predicted_bytes else "",
            gib(item.allocated_bytes) if item.allocated_bytes else "",
        ]
        for item in sorted(found, key=lambda item: (item.adapter, item.size_px))
    ]
    say(table(_HEAD, rows))
