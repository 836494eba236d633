"""The allocator that is followed, by its rules and beside what was measured on a card."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("diffusers")
from benchmarks.simulation.cuda_allocator import AllocatorFull, CachingAllocator
from benchmarks.simulation.cuda_peak import GEMM_WORKSPACE_BYTES, ReservedPeak
from benchmarks.simulation.simulate import simulate
from benchmarks.simulation.unet import pooled_width, simulated_unet
from lib_trainer.memory.plan import CONTEXT_BYTES, GIB, Budget, Plan
from lib_trainer.models.families import SDXL
from tests.memory.plans import CARD_8GB, FACE, STYLE, plan_of

MIB = 2**20
HOPPER_WORKSPACE_BYTES = 32 * MIB


def test_small_blocks_share_segments_of_two_mebibytes_and_larger_ones_of_twenty() -> None:
    allocator = CachingAllocator()
    small = [allocator.allocate(size) for size in (1, 512, MIB)]
    assert [block.size for block in small] == [512, 512, MIB] and allocator.held_bytes == 2 * MIB
    allocator.allocate(MIB + 1)
    allocator.allocate(9 * MIB)
    assert allocator.held_bytes == 22 * MIB
    allocator.allocate(21 * MIB)
    assert allocator.held_bytes == 44 * MIB, "segments of their own come in steps of two"


def test_the_smallest_block_that_is_large_enough_is_taken() -> None:
    allocator = CachingAllocator()
    roomy, tight = allocator.allocate(40 * MIB), allocator.allocate(30 * MIB)
    allocator.free(roomy)
    allocator.free(tight)
    assert allocator.allocate(25 * MIB).address[0] == tight.address[0]
    assert allocator.held_bytes == allocator.peak_bytes == 70 * MIB


def test_free_neighbours_become_one_block_and_those_apart_stay_gaps() -> None:
    allocator = CachingAllocator()
    first, second, third = (allocator.allocate(6 * MIB) for _ in range(3))
    allocator.free(first)
    allocator.free(third)
    assert allocator.allocate(9 * MIB).address[0] != first.address[0], "two gaps of six hold no nine"
    allocator.free(second)
    assert allocator.allocate(18 * MIB).address == (first.address[0], 0)


def test_at_the_limit_whole_segments_are_given_back_before_it_is_full() -> None:
    allocator = CachingAllocator(100 * MIB)
    whole, split = allocator.allocate(60 * MIB), allocator.allocate(6 * MIB)
    allocator.free(whole)
    assert allocator.allocate(70 * MIB).size == 70 * MIB and allocator.retries == 1
    assert allocator.held_bytes == 90 * MIB
    with pytest.raises(AllocatorFull):
        allocator.allocate(15 * MIB)
    allocator.free(split)
    assert allocator.allocate(20 * MIB).address[0] == split.address[0]


def test_what_is_left_of_a_segment_that_took_a_retry_can_be_had() -> None:
    allocator = CachingAllocator(24 * MIB)
    allocator.free(allocator.allocate(12 * MIB))
    block = allocator.allocate(12 * MIB + MIB // 2)
    assert allocator.retries == 1 and allocator.held_bytes == 14 * MIB
    assert allocator.allocate(MIB + MIB // 4).address[0] == block.address[0]


def test_storages_and_workspaces_come_from_the_allocator() -> None:
    allocator = CachingAllocator()
    with ReservedPeak(allocator) as peak:
        a = torch.empty(4 * MIB, dtype=torch.uint8)
        assert allocator.held_bytes == 20 * MIB and peak.current == 4 * MIB
        x = torch.empty(8, 8)
        torch.mm(x, x)
        # The two threads' workspaces fill the segment; the small tensors have one of theirs.
        assert GEMM_WORKSPACE_BYTES == 8 * MIB and allocator.held_bytes == 22 * MIB
        del a
    assert allocator.allocate(4 * MIB).address == (1, 0) and allocator.held_bytes == 22 * MIB
    allocator.allocate(2 * MIB)
    assert allocator.held_bytes == 42 * MIB


def test_what_is_held_is_what_an_h200_held() -> None:
    """LoKr's steps on SDXL at 1024 px, with the allocator limited to what a card of 8 GB leaves it."""
    as_planned_then = Budget(CARD_8GB.total_bytes, round(0.8 * GIB))
    held = held_bytes(plan_of(SDXL, 1024, as_planned_then, adapter=STYLE), HOPPER_WORKSPACE_BYTES)
    assert held / GIB == pytest.approx(6.727, rel=0.02)


def test_sdxl_fits_a_card_of_8_gb_with_the_allocators_gaps() -> None:
    """At the face recipe's size."""
    assert held_bytes(plan_of(SDXL, 896, adapter=FACE), GEMM_WORKSPACE_BYTES) > 6 * GIB


def held_bytes(plan: Plan, workspace_bytes: int) -> int:
    """The allocator's peak over a simulated step, whose storages are what the plan predicts. Raises AllocatorFull."""
    allocator = CachingAllocator(plan.budget.total_bytes - CONTEXT_BYTES)
    peak = ReservedPeak(allocator, workspace_bytes)
    with simulated_unet(plan.work.shape, torch.bfloat16) as model:
        storages = simulate(model, plan, pooled_width(plan.work.shape), peak, steps=1)
    assert plan.parts.total == pytest.approx(storages, rel=0.05)
    return allocator.peak_bytes
