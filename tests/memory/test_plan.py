from __future__ import annotations

from dataclasses import replace

import pytest

from lib_trainer.memory.estimate import Savings, all_blocks, predict
from lib_trainer.memory.layer_cost import layer_cost
from lib_trainer.memory.plan import GIB, Budget, make_plan
from lib_trainer.memory.unet_blocks import unet_blocks
from lib_trainer.models.families import FLUX, SD1, SDXL, Family
from tests.memory.plans import FACE, STYLE, plan_of, work_of

BOTH = pytest.mark.parametrize("adapter", [FACE, STYLE], ids=["face", "style"])


@BOTH
@pytest.mark.parametrize(
    ("family", "size_px", "card_gb"), [(SD1, 896, 8), (SDXL, 1024, 8), (SDXL, 1024, 6)], ids=["sd1", "sdxl", "sdxl-6GB"]
)
def test_both_recipes_fit_the_cards_they_are_made_for(family: Family, size_px: int, card_gb: int, adapter) -> None:
    budget = Budget.of_card(card_gb)
    assert budget.total_bytes == pytest.approx((card_gb - 0.8) * GIB)
    plan = plan_of(family, size_px, budget, adapter=adapter)
    assert plan.fits and plan.total_bytes <= budget.total_bytes
    assert plan.total_bytes == sum(plan.named_parts.values())


@BOTH
def test_an_ordinary_sd1_run_needs_no_saving_on_8_gb(adapter) -> None:
    savings = plan_of(SD1, 896, adapter=adapter).savings
    assert (savings.recomputed, savings.int8_base, savings.streamed, savings.fused) == (0, False, 0.0, False)


# From the cheapest to the dearest, and how to see that one is used.
SAVINGS = {
    "optimizer": lambda savings: savings.optimizer == "AdamW8bit",
    "fused": lambda savings: savings.fused,
    "int8_base": lambda savings: savings.int8_base,
    "streamed": lambda savings: savings.streamed > 0,
    "batch": lambda savings: savings.batch < 2,
}


@pytest.mark.parametrize("card_gb", [11, 9, 8, 7, 6, 5, 4, 3, 2.6])
def test_a_saving_is_used_only_where_all_cheaper_ones_are_not_enough(card_gb: float) -> None:
    work, budget = work_of(SDXL, 1024, optimizer="AdamW", train_batch_size=2), Budget.of_card(card_gb)
    plan = make_plan(work, budget)
    used = [name for name, is_used in SAVINGS.items() if is_used(plan.savings)]
    if not used:
        return
    dearest = list(SAVINGS).index(used[-1])
    most = Savings(plan.blocks, dearest > 1, dearest > 2, float(dearest > 3), _optimizer(dearest > 0), 2)
    without = replace(plan, savings=most, parts=predict(work, most))
    assert not without.fits, f"{used[-1]} was not needed"


def _optimizer(eight_bit: bool) -> str:
    return "AdamW8bit" if eight_bit else "AdamW"


def test_as_the_room_shrinks_every_saving_comes_into_use() -> None:
    work = work_of(SDXL, 1024, optimizer="AdamW")
    plans = [make_plan(work, Budget.of_card(tenths / 10)) for tenths in (240, 95, 85, 81, 80, 70, 50, 35)]
    plans.append(plan_of(SD1, 1024, Budget.of_card(2.4), train_batch_size=6, optimizer="AdamW"))
    for name, is_used in SAVINGS.items():
        assert any(is_used(plan.savings) for plan in plans if name != "batch" or plan.work.family is SD1), name
    assert plans[0].savings == Savings(0, False, False, 0.0, "AdamW", 1)
    totals = [plan.parts.total for plan in plans[:-1]]
    assert totals == sorted(totals, reverse=True)


def test_more_room_never_costs_more() -> None:
    recomputed = [plan_of(SD1, 896, Budget.of_card(gb)).savings.recomputed for gb in (4.5, 5, 5.5, 6)]
    assert recomputed == sorted(recomputed, reverse=True) and recomputed[0] > recomputed[-1]


def test_narrow_blocks_are_recomputed_first() -> None:
    """They save most for their work."""
    plan = plan_of(SD1, 896, Budget.of_card(5.2))
    blocks = [part for part in unet_blocks(SD1.shape, 896, 896) if part.recomputable]
    chosen = [blocks[place] for place in plan.placement.recomputed]
    assert 0 < len(chosen) < len(blocks)
    widest = max(site.operation.shape[0] for part in chosen for site in part.sites)
    left = [part for part in blocks if part not in chosen]
    assert max(site.operation.shape[0] for part in left for site in part.sites) >= widest


def test_without_a_known_room_the_recipe_is_taken_at_its_word() -> None:
    plan = plan_of(SDXL, 1024, None, gradient_checkpointing=True, train_batch_size=2)
    assert plan.fits and plan.savings.recomputed == plan.blocks and plan.recipe == plan.work.recipe
    assert plan_of(SDXL, 1024, None, gradient_checkpointing=False).savings.recomputed == 0


def test_what_cannot_fit_is_planned_as_small_as_can_be() -> None:
    plan = plan_of(SDXL, 1024, Budget.of_card(2))
    assert not plan.fits and plan.savings.streamed == 1 and plan.savings.int8_base
    assert make_plan(plan.work, Budget(plan.total_bytes + GIB, plan.budget.reserve_bytes)).fits


def test_weights_in_low_bits_already_are_not_stored_anew() -> None:
    work = replace(work_of(SDXL, 1024), weight_bytes=0.5)
    plan = make_plan(work, Budget.of_card(4), dense=False)
    assert not plan.savings.int8_base and plan.savings.streamed == 0
    assert plan.parts.base < 0.35 * make_plan(replace(work, weight_bytes=2), Budget.of_card(8), dense=False).parts.base


def test_a_smaller_batch_makes_up_for_it_in_passes() -> None:
    plan = plan_of(SD1, 1024, Budget.of_card(2.4), train_batch_size=6)
    training = plan.recipe.training
    assert training.train_batch_size < 6
    assert training.train_batch_size * training.gradient_accumulation_steps == 6
    assert not training.fused_backward_pass


@pytest.mark.parametrize("forbidden", [{"optimizer": "Prodigy"}, {"gradient_accumulation_steps": 2}])
def test_steps_within_backward_are_left_out_where_they_cannot_be(forbidden: dict) -> None:
    for gb in (9, 6, 4, 3):
        plan = plan_of(SDXL, 1024, Budget.of_card(gb), **forbidden)
        plan.recipe.check(needs_name=False)
        assert not plan.savings.fused


def test_a_run_that_goes_on_takes_its_steps_as_before_however_little_room_there_is() -> None:
    """Another batch, optimizer or way of stepping would be another run, and its kept state would not fit."""
    work = work_of(SDXL, 1024, optimizer="AdamW", train_batch_size=4)
    for gb in (24, 12, 8, 6, 4):
        plan = make_plan(work, Budget.of_card(gb), resuming=True)
        assert plan.recipe == work.recipe
        assert plan.for_budget(plan.budget).recipe == work.recipe
    assert plan.savings.streamed and plan.savings.int8_base and plan.savings.recomputed


def test_a_trained_text_encoder_is_counted() -> None:
    alone, both = (plan_of(SDXL, 1024, Budget.of_card(24), text_encoder_lr=rate) for rate in (0.0, 1e-5))
    weights = sum(layers * 12 * width**2 + 49485 * width for width, layers in SDXL.text_encoders) * 2
    assert both.parts.base - alone.parts.base == pytest.approx(weights, rel=0.02)
    assert both.parts.adapter > alone.parts.adapter


@pytest.mark.parametrize("family", [SD1, FLUX], ids=lambda family: family.key)
def test_a_search_measures_each_kind_of_layer_once(family: Family) -> None:
    """Whatever it tries: as the weights are, and copied for each use."""
    size_px = 1088  # which no other test plans for
    sites = [site for block in all_blocks(work_of(family, size_px)) for site in block.sites]
    before = layer_cost.cache_info().misses
    plan_of(family, size_px, Budget.of_card(5))
    measured = layer_cost.cache_info().misses - before
    assert 0 < measured <= 2 * len({(site.operation, site.x_shape, site.adapted) for site in sites})


def test_a_run_with_preservation_keeps_its_gradients() -> None:
    work, budget = work_of(SDXL, 1024), Budget.of_card(6)
    assert make_plan(work, budget).savings.fused
    preserving = replace(work.recipe.evaluation, prior_preservation=True)
    plan = make_plan(replace(work, recipe=replace(work.recipe, evaluation=preserving)), budget)
    assert plan.fits and not plan.savings.fused
