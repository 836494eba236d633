from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from lib_trainer.config.recipe import Recipe
from lib_trainer.dataset.buckets import Bucket
from lib_trainer.errors import ConfigError, UserError
from lib_trainer.memory import planner
from lib_trainer.memory.plan import GIB, Budget
from lib_trainer.memory.planner import (
    budget_of,
    describe_plan,
    plan_from_profile,
    plan_run,
    require_fit,
    what_would_help,
)
from lib_trainer.models.families import SD1, SDXL
from lib_trainer.models.placement import MemoryProfile
from tests.memory.plans import FACE, plan_of

CPU = torch.device("cpu")
ON_CARD = MemoryProfile(SDXL, SDXL.shape, 2, available_bytes=round(7 * GIB), total_bytes=8 * GIB)
ON_CPU = MemoryProfile(SD1, SD1.shape, 4)


def recipe_of(**training: Any) -> Recipe:
    recipe = Recipe(adapter=FACE)
    return replace(recipe, training=replace(recipe.training, **training))


def test_the_largest_bucket_decides() -> None:
    sizes = [Bucket(512, 512), Bucket(640, 896), Bucket(896, 512)]
    assert plan_run(ON_CPU, recipe_of(), sizes, CPU).work.width_px == 640


def test_room_is_what_the_recipe_allows_or_what_the_device_has() -> None:
    assert budget_of(ON_CPU, recipe_of()) is None
    assert budget_of(ON_CARD, recipe_of()).total_bytes == ON_CARD.available_bytes
    for memory_profile in (ON_CARD, ON_CPU):
        assert budget_of(memory_profile, recipe_of(vram_budget_gb=6)) == Budget.of_card(6)
    # Where free memory is measured, the driver's context is not free any more.
    assert budget_of(ON_CARD, recipe_of()).reserve_bytes < Budget.of_card(6).reserve_bytes


def test_on_a_cpu_the_plan_counts_what_is_computed_there() -> None:
    plan = plan_from_profile(ON_CPU, recipe_of(optimizer="AdamW"))
    assert plan.work.compute == torch.float32
    half = plan_of(SD1, 768, None, optimizer="AdamW")
    assert plan.parts.base == pytest.approx(2 * half.parts.base, rel=0.01)


def test_a_budget_is_kept_to_wherever_it_is_trained() -> None:
    plan = plan_from_profile(ON_CPU, recipe_of(vram_budget_gb=5))
    assert plan.fits and plan.savings.recomputed and plan.total_bytes <= 4.2 * GIB


def test_a_budget_that_cannot_be_met_says_what_it_takes_and_what_would_help() -> None:
    plan = plan_of(SDXL, 1024, Budget.of_card(3), adapter=FACE)
    words = r"at least 2\.\d GB, and 2\.2 GB are available; the largest part is the"
    with pytest.raises(UserError, match=words) as caught:
        require_fit(plan)
    assert "rank" in caught.value.hint or "px" in caught.value.hint
    rank = int(caught.value.hint.partition("rank ")[2].rstrip("."))
    smaller = replace(FACE, network_dim=rank, conv_dim=min(rank, FACE.conv_dim))
    assert plan_of(SDXL, 1024, Budget.of_card(3), adapter=smaller).fits
    require_fit(plan_of(SDXL, 1024, Budget.of_card(6)))


def test_where_nothing_helps_that_is_said() -> None:
    assert "larger GPU" in what_would_help(plan_of(SDXL, 1024, Budget.of_card(1.2)))


@pytest.mark.parametrize("nonsense", [-1, 0.3, float("nan"), "eight", 1e9])
def test_nonsense_budgets_are_refused(nonsense: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        recipe = Recipe().with_values({"vram_budget_gb": nonsense, "train_data_dir": "x", "output_name": "x"})
        recipe.check()
    assert set(caught.value.problems) == {"vram_budget_gb"}


def test_a_plan_is_told_in_a_sentence() -> None:
    text = describe_plan(plan_of(SDXL, 1024, Budget.of_card(4), adapter=FACE, train_batch_size=1))
    assert "of 3.2 GB" in text
    for part in ("radient checkpointing on", "fused backward pass", "in 8 bits", "offloaded to the CPU"):
        assert part in text
    assert describe_plan(plan_of(SD1, 512)) == "Memory: about 3.7 of 7.2 GB."


def test_on_a_cpu_no_more_blocks_are_recomputed_than_the_ram_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = []
    for gib in (64, 18, 1, None):
        monkeypatch.setattr(planner, "total_ram", lambda gib=gib: gib and round(gib * GIB))
        plan = plan_run(ON_CPU, recipe_of(train_batch_size=4), [(768, 768)], CPU)
        counts.append(plan.savings.recomputed)
        assert plan.budget is None and plan.recipe == plan.work.recipe
        # The other half is the WebUI's and the system's.
        assert gib != 18 or plan.parts.total <= 18 * GIB / 2
    assert counts[0] == 0 < counts[1] < counts[2] == counts[3] == plan.blocks
    # What the recipe does not ask for is not done.
    off = plan_run(ON_CPU, recipe_of(gradient_checkpointing=False), [(768, 768)], CPU)
    assert off.savings.recomputed == 0
