from __future__ import annotations

import pytest
import torch

from lib_trainer.errors import OutOfMemory
from lib_trainer.memory.out_of_memory import explained_out_of_memory, smaller_card_gb
from lib_trainer.memory.plan import Budget, Plan
from tests.memory.plans import plan_of


@pytest.mark.parametrize(
    "error",
    [torch.cuda.OutOfMemoryError("CUDA out of memory."), MemoryError(), RuntimeError("can't allocate memory: 9")],
)
@pytest.mark.parametrize("plan", [None, plan_of()])
def test_every_kind_of_shortage_is_explained(error: Exception, plan: Plan | None) -> None:
    with pytest.raises(OutOfMemory, match="ran out of memory") as caught, explained_out_of_memory(plan):
        raise error
    assert caught.value.__cause__ is error
    assert caught.value.hint


def test_the_next_plan_is_offered_as_settings_and_takes_less() -> None:
    plan = plan_of(budget=Budget.of_card(12), train_batch_size=2)
    takes = []
    for _ in range(50):
        takes.append(plan.parts.total)
        with pytest.raises(OutOfMemory) as caught, explained_out_of_memory(plan):
            raise MemoryError
        if not caught.value.settings:
            break
        assert "Train with a plan for less memory: " in caught.value.hint
        budget = caught.value.settings["vram_budget_gb"]
        assert budget == smaller_card_gb(plan)
        plan = plan.for_budget(Budget.of_card(budget))
        assert plan.fits
    assert len(takes) > 3 and takes == sorted(takes, reverse=True)
    assert "lower the resolution from 512×512 px" in caught.value.hint


def test_what_the_next_plan_does_is_named() -> None:
    full = plan_of(budget=Budget.of_card(24))
    with pytest.raises(OutOfMemory, match="gradient checkpointing on"), explained_out_of_memory(full):
        raise MemoryError


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="shape"), explained_out_of_memory(None):
        raise RuntimeError("shape mismatch")
