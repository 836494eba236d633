"""Running out of memory, said so that a person can do something about it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from lib_trainer.errors import Shortage
from lib_trainer.memory.plan import DESKTOP_BYTES, GIB, Budget, Plan

# What torch says on a CPU and on devices without an exception of their own.
_WORDS = ("out of memory", "can't allocate memory", "not enough memory")
# A run that did not fit is offered a plan that takes so much less.
_LOWER = 0.88


def is_shortage(error: BaseException) -> bool:
    if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _WORDS)


@contextmanager
def explained_shortage(plan: Plan | None) -> Iterator[None]:
    """Turns running out of memory into a `Shortage` that says what to do; other errors pass.

    Args:
        plan: of the run; None before there is one.
    """
    try:
        yield
    except Exception as error:
        if not is_shortage(error):
            raise
        hint, settings = _remedy(plan)
        raise Shortage("The memory of the graphics card is not enough.", hint, settings) from error


def _remedy(plan: Plan | None) -> tuple[str, dict[str, float]]:
    """What would help, and the settings that do it."""
    if plan is None:
        return "Close other programs that use the card, or choose a smaller size.", {}
    lower = lower_budget_gb(plan)
    if lower is not None:
        return f"Train with a plan for less memory: {_savings_left(plan)}.", {"vram_budget_gb": lower}
    work = plan.work
    return (
        f"Nothing more can be saved; lower the size from {work.width_px}×{work.height_px} px,"
        f" or the rank from {work.recipe.adapter.network_dim}.",
        {},
    )


def lower_budget_gb(plan: Plan) -> float | None:
    """The card size whose plan takes clearly less than this one; None if this is the smallest plan."""
    wanted = (plan.parts.total * _LOWER + Budget.of_card(1).reserve_bytes + DESKTOP_BYTES) / GIB
    lower = _plan_for(plan, round(wanted, 2))
    return round(wanted, 2) if lower.fits and lower.parts.total < plan.parts.total else None


def _savings_left(plan: Plan) -> str:
    """What the lower plan does that this one does not."""
    lower = _plan_for(plan, lower_budget_gb(plan) or 0.0).savings
    now, told = plan.savings, []
    if lower.recomputed > now.recomputed:
        told.append("more blocks are computed twice")
    if lower.optimizer != now.optimizer:
        told.append(f"the optimizer is {lower.optimizer}")
    if lower.fused and not now.fused:
        told.append("each layer takes its step within backward")
    if lower.int8_base and not now.int8_base:
        told.append("the checkpoint's weights are held in 8 bits")
    if lower.streamed > now.streamed:
        told.append("more weights stay on the CPU")
    if lower.batch < now.batch:
        told.append(f"{lower.batch} pictures at a time")
    return ", ".join(told)


def _plan_for(plan: Plan, card_gb: float) -> Plan:
    return plan.in_room(Budget.of_card(card_gb))
