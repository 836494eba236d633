"""What a person reads when the GPU runs out of memory: what to change, and settings that change it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from lib_trainer.errors import OutOfMemory
from lib_trainer.memory.plan import DESKTOP_BYTES, GIB, Budget, Plan
from lib_trainer.memory.planner import describe_savings

# torch's messages on a CPU and on devices without an exception type of their own.
_MESSAGES = ("out of memory", "can't allocate memory", "not enough memory")
# The plan that is offered after a failure takes this share of the failed one, or less.
_SMALLER = 0.88


def is_out_of_memory(error: BaseException) -> bool:
    # CPU allocators raise plain RuntimeErrors.
    if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(message in str(error) for message in _MESSAGES)


@contextmanager
def explained_out_of_memory(plan: Plan | None) -> Iterator[None]:
    """Turns running out of memory into an `OutOfMemory` that says what to do; lets other errors through.

    Args:
        plan: of the run; None before there is one.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        hint, settings = _remedy(plan)
        raise OutOfMemory("The GPU ran out of memory.", hint, settings) from error


def _remedy(plan: Plan | None) -> tuple[str, dict[str, float]]:
    """What would help, and the settings that do it."""
    if plan is None:
        return "Close other programs that use the GPU, or choose a smaller resolution.", {}
    card_gb = smaller_card_gb(plan)
    if card_gb is None:
        work = plan.work
        size, rank = f"{work.width_px}×{work.height_px} px", work.recipe.adapter.network_dim
        return f"No saving is left: lower the resolution from {size}, or the rank from {rank}.", {}
    before = describe_savings(plan)
    added = [saving for saving in describe_savings(plan.for_budget(Budget.of_card(card_gb))) if saving not in before]
    return f"Train with a plan for less memory: {', '.join(added)}.", {"vram_budget_gb": card_gb}


def smaller_card_gb(plan: Plan) -> float | None:
    """VRAM of the card whose plan takes clearly less than this one, in GiB; None for the smallest plan."""
    card_gb = round((plan.parts.total * _SMALLER + Budget.of_card(1).reserve_bytes + DESKTOP_BYTES) / GIB, 2)
    smaller = plan.for_budget(Budget.of_card(card_gb))
    # Rounding to 0.01 GiB may add more than a small model takes: a plan that saves nothing would fail again.
    return card_gb if smaller.fits and smaller.parts.total < plan.parts.total else None
