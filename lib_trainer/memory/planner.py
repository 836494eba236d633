"""Makes the memory plan of a run from its recipe, images and device, and puts it into words."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import torch

from lib_trainer.config.recipe import Recipe
from lib_trainer.dataset.buckets import Bucket
from lib_trainer.dataset.sampler import Schedule
from lib_trainer.dataset.scan import Scan
from lib_trainer.errors import UserError
from lib_trainer.events import Event, Planned
from lib_trainer.memory.continued import frozen_file_bytes, shapes_in_file
from lib_trainer.memory.estimate import Work
from lib_trainer.memory.layer_cost import ModuleShape
from lib_trainer.memory.plan import GIB, RESERVE, Budget, Plan, make_plan
from lib_trainer.models.base import HostModel
from lib_trainer.models.device import DTYPES, available_optimizer, compute_dtype, total_ram
from lib_trainer.models.families import Family, TransformerShape, UNetShape
from lib_trainer.models.optimizers import canonical_name
from lib_trainer.models.placement import MemoryProfile

_HALF_BYTES = 2
ContinuedShapes = tuple[tuple[str, ModuleShape], ...]
# Resolutions that are tried to say what would fit.
_SMALLER_SIZES_PX = (1024, 896, 768, 640, 512)


def planned(
    model: HostModel,
    recipe: Recipe,
    scan: Scan,
    dtype: torch.dtype,
    *,
    resuming: bool,
    frozen_bytes: int = 0,
    continued: ContinuedShapes = (),
    agree: Callable[[Plan], Plan] = lambda plan: plan,
) -> Generator[Event, None, Plan]:
    """The plan of a run on an opened model; yields it as an event.

    Args:
        dtype: what the model computes in.
        frozen_bytes: of LoRAs that act and are not trained.
        continued: layers and ranks that are trained instead of the recipe's; see `Work`.
        resuming: the run keeps its batch size and optimizer, however much memory is free now.
        agree: this device's plan -> the plan of all devices that share the run.

    Raises:
        UserError: no plan fits the recipe's `vram_budget_gb`. A measured budget never refuses: it may fit.
    """
    profile, sizes = model.memory_profile(), Schedule(scan, recipe).buckets
    plan = plan_run(
        profile, recipe, sizes, model.device, dtype, resuming=resuming, frozen_bytes=frozen_bytes, continued=continued
    )
    plan = agree(plan)
    # A person's own limit is a promise; a measurement may be too pessimistic.
    if recipe.training.vram_budget_gb:
        require_fit(plan)
    budget_bytes = plan.budget.total_bytes if plan.budget else 0
    yield Planned(plan.named_parts, plan.total_bytes, plan.parts.total, budget_bytes, describe_plan(plan))
    return plan


def plan_run(
    memory_profile: MemoryProfile,
    recipe: Recipe,
    sizes: Iterable[Bucket | tuple[int, int]],
    device: torch.device,
    dtype: torch.dtype | None = None,
    *,
    resuming: bool = False,
    frozen_bytes: int = 0,
    continued: ContinuedShapes = (),
) -> Plan:
    """The plan for images of these sizes; the largest decides.

    Args:
        device: where it is trained.
        dtype: what the model computes in; None for what suits the recipe and the device.
        resuming: see `make_plan`.
        frozen_bytes, continued: see `planned`.
    """
    pairs = [(size.width_px, size.height_px) if isinstance(size, Bucket) else size for size in sizes]
    width_px, height_px = max(pairs, key=lambda pair: pair[0] * pair[1])
    training = recipe.training
    optimizer, _ = available_optimizer(training.optimizer, device)
    work = Work(
        family=memory_profile.family,
        shape=memory_profile.shape,
        recipe=recipe,
        optimizer=optimizer,
        width_px=width_px,
        height_px=height_px,
        weight_bytes=memory_profile.weight_bytes,
        compute=dtype or compute_dtype(training.mixed_precision, device),
        frozen_bytes=frozen_bytes,
        continued=continued,
    )
    # Whether bitsandbytes is there and runs on this device.
    eight_bit = available_optimizer("AdamW8bit", device)[0] == "AdamW8bit"
    budget = budget_of(memory_profile, recipe)
    dense, ram_bytes = memory_profile.is_dense, total_ram() if device.type == "cpu" else None
    return make_plan(work, budget, dense=dense, eight_bit=eight_bit, resuming=resuming, ram_bytes=ram_bytes)


def plan_from_profile(
    memory_profile: MemoryProfile, recipe: Recipe, continued: Path | None = None, frozen: Iterable[Path] = ()
) -> Plan:
    """The plan before a model is opened, for images of the recipe's full resolution.

    Args:
        continued: the file of the LoRA whose layers and ranks are trained instead of the recipe's.
        frozen: files of the LoRAs that act and are not trained.

    Raises:
        UserError: one of these files cannot be read, or fits no layer.
    """
    shapes = _shapes_of(continued, memory_profile.family, memory_profile.shape)
    # No device was asked yet: without VRAM it is a CPU.
    device = torch.device("cpu" if memory_profile.available_bytes is None else "cuda")
    return plan_run(
        memory_profile,
        recipe.for_its_mode(),
        [recipe.dataset.resolution_px],
        device,
        frozen_bytes=sum(map(frozen_file_bytes, frozen)),
        continued=shapes,
    )


def plan_for_card(
    family: Family,
    recipe: Recipe,
    width_px: int,
    height_px: int,
    budget: Budget,
    continued: Path | None = None,
    frozen: Iterable[Path] = (),
) -> Plan:
    """The plan for a checkpoint of the family in half precision, on any GPU; this machine's is not queried.

    Args:
        continued, frozen: see `plan_from_profile`.
    """
    recipe, compute = recipe.for_its_mode(), DTYPES[recipe.training.mixed_precision]
    work = Work(
        family, family.shape, recipe, canonical_name(recipe.training.optimizer), width_px, height_px, _HALF_BYTES,
        compute, sum(map(frozen_file_bytes, frozen)), _shapes_of(continued, family, family.shape),
    )  # fmt: skip
    return make_plan(work, budget)


def _shapes_of(continued: Path | None, family: Family, shape: UNetShape | TransformerShape) -> ContinuedShapes:
    if continued is None or not isinstance(shape, UNetShape):
        return ()
    return shapes_in_file(continued, continued.stat().st_mtime_ns, family, shape)


def budget_of(memory_profile: MemoryProfile, recipe: Recipe) -> Budget | None:
    """The recipe's budget, or the device's; None if unknown."""
    if recipe.training.vram_budget_gb:
        return Budget.of_card(recipe.training.vram_budget_gb)
    if memory_profile.available_bytes is None:
        return None
    return Budget.measured(memory_profile.available_bytes)


def describe_plan(plan: Plan) -> str:
    """`Memory: about 6.1 of 7.2 GB. Gradient checkpointing on 42 of 87 blocks; base weights in 8 bits.`"""
    total = f"Memory: about {show_gib(plan.total_bytes)}"
    budget = f" of {plan.budget.total_bytes / GIB:.1f} GB." if plan.budget else " GB."
    savings = "; ".join(describe_savings(plan))
    return f"{total}{budget} {savings[:1].upper()}{savings[1:]}." if savings else f"{total}{budget}"


def show_gib(size_bytes: int) -> str:
    """In GiB: `6.1`, or `0.03` below one."""
    return f"{size_bytes / GIB:.1f}" if size_bytes >= GIB else f"{size_bytes / GIB:.2f}"


def describe_savings(plan: Plan) -> list[str]:
    """Each saving of the plan as a phrase."""
    savings, training = plan.savings, plan.work.recipe.training
    told = []
    if savings.recomputed:
        told.append(f"gradient checkpointing on {savings.recomputed} of {plan.blocks} blocks")
    if savings.optimizer != plan.work.optimizer:
        told.append(f"optimizer {savings.optimizer}")
    if savings.fused:
        told.append("fused backward pass")
    if savings.int8_base:
        told.append("base weights in 8 bits")
    if savings.streamed:
        told.append(f"{savings.streamed:.0%} of the base weights offloaded to the CPU")
    if savings.batch < training.train_batch_size:
        steps = plan.recipe.training.gradient_accumulation_steps
        told.append(f"batch size {savings.batch} with {steps} accumulation steps")
    return told


def require_fit(plan: Plan) -> None:
    """Raises UserError if the plan exceeds its budget: the least it takes, and what would help most."""
    if plan.fits:
        return
    budget = plan.budget.total_bytes / GIB
    largest = max((part for part in plan.named_parts.items() if part[0] != RESERVE), key=lambda part: part[1])
    raise UserError(
        f"This takes at least {plan.total_bytes / GIB:.1f} GB, and {budget:.1f} GB are available; the largest part is"
        f" {largest[0]} with {largest[1] / GIB:.1f} GB.",
        what_would_help(plan),
    )


def what_would_help(plan: Plan) -> str:
    """Which smaller resolution or rank would fit; the one that changes less comes first."""
    found = list(_smaller(plan))
    if not found:
        return "Neither a smaller resolution nor a smaller rank would fit: free VRAM, or use a larger GPU."
    return f"What would fit: {' or '.join(found)}."


def _smaller(plan: Plan) -> Iterator[str]:
    """The largest smaller resolution that fits, then the largest smaller rank."""
    work = plan.work
    side = (work.width_px * work.height_px) ** 0.5
    for size_px in (size for size in _SMALLER_SIZES_PX if size < side):
        if plan.can_fit(replace(work, width_px=size_px, height_px=size_px)):
            yield f"{size_px}×{size_px} px"
            break
    rank = work.recipe.adapter.network_dim // 2
    while rank >= 4:
        adapter = replace(work.recipe.adapter, network_dim=rank, conv_dim=min(rank, work.recipe.adapter.conv_dim))
        if plan.can_fit(replace(work, recipe=replace(work.recipe, adapter=adapter))):
            yield f"rank {rank}"
            break
        rank //= 2
