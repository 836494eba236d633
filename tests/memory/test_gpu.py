"""On a graphics card: what is predicted and simulated against what the allocator counts."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

pytest.importorskip("diffusers")
from benchmarks.card import steps_on_card
from lib_trainer.memory.plan import Budget, Plan
from lib_trainer.models.families import SD1, SDXL, Family
from tests.memory.plans import FACE, STYLE, plan_of
from tests.memory.test_estimate import SD1_SMALL

if not torch.cuda.is_available():
    pytest.skip("needs a GPU that torch can use", allow_module_level=True)
pytestmark = pytest.mark.gpu
SMALL = replace(SD1, shape=SD1_SMALL)


@pytest.mark.parametrize("adapter", [FACE, STYLE], ids=["face", "style"])
@pytest.mark.parametrize(
    ("family", "size_px", "card_gb"),
    [(SMALL, 512, 24), (SMALL, 512, 2.6), (SMALL, 512, 2.2), (SD1, 512, 8), (SDXL, 1024, 8), (SDXL, 1024, 6)],
    ids=lambda value: getattr(value, "key", value),
)
def test_the_allocators_peak_is_what_was_predicted(adapter, family: Family, size_px: int, card_gb: float) -> None:
    """Taking no more than such a card has, which `steps_on_card` sees to."""
    plan = plan_of(family, size_px, Budget.of_card(card_gb), adapter=adapter, optimizer="AdamW8bit")
    measured = peak_on_card(plan)
    assert abs(plan.parts.total / measured - 1) < 0.05, (plan.savings, plan.parts, measured)


def peak_on_card(plan: Plan) -> int:
    """Peak of three whole steps, the optimizer's included, as torch counts it."""
    return max(step.peak_bytes for step in steps_on_card(plan, 3))
