"""Whether a run will fit before it begins, and the cheapest savings that make it fit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from lib_trainer.config.optimization import needs_all_gradients
from lib_trainer.config.recipe import Recipe
from lib_trainer.memory.estimate import Parts, Savings, Work, all_blocks, predict, recompute_order
from lib_trainer.models.placement import Placement

GIB = 2**30
RESERVE = "reserve"
# VRAM used by the desktop, unavailable for training.
DESKTOP_BYTES = round(0.8 * GIB)
# VRAM that no tensor accounts for: the CUDA context, library workspaces, and fragmentation, which reached 0.7 GiB with
# base weights in 8 bits.
RESERVE_BYTES = round(1.0 * GIB)
# The part of the reserve that a running program has in use already when it measures free memory.
CONTEXT_BYTES = round(0.3 * GIB)
# Simulated steps took up to 3 % more than predicted.
_MARGIN = 0.03
# Of the RAM that a run on the CPU may take: the rest is the WebUI's and the system's.
_RAM_SHARE = 0.5
# Candidates offload this share of the weights more than the one before.
_OFFLOAD_STEP = 1 / 16


@dataclass(frozen=True)
class Budget:
    """VRAM for training.

    Attributes:
        total_bytes: all of it, the reserve included.
        reserve_bytes: kept free for what no tensor accounts for.
    """

    total_bytes: int
    reserve_bytes: int

    @classmethod
    def of_card(cls, gib: float) -> Budget:
        """A GPU with that much VRAM and a desktop on it."""
        return cls(round(gib * GIB) - DESKTOP_BYTES, RESERVE_BYTES)

    @classmethod
    def measured(cls, available_bytes: int) -> Budget:
        """What a running program measures as free."""
        return cls(available_bytes, RESERVE_BYTES - CONTEXT_BYTES)


@dataclass(frozen=True)
class Plan:
    """A run and the memory it will take.

    Attributes:
        budget: None if unknown, as on a CPU: then the plan is the recipe as written, but for blocks that need not be
            recomputed.
        blocks: how many can be recomputed.
        dense, eight_bit, resuming: see `make_plan`.
    """

    work: Work
    savings: Savings
    parts: Parts
    budget: Budget | None
    blocks: int
    dense: bool = True
    eight_bit: bool = True
    resuming: bool = False

    @property
    def named_parts(self) -> dict[str, int]:
        """Label of each part -> bytes, the reserve included."""
        parts = self.parts
        named = {
            "the checkpoint": parts.base,
            "the adapter": parts.adapter,
            "its optimizer": parts.optimizer,
            "gradients": parts.gradients,
            "activations": parts.activations,
            "temporary buffers": parts.working,
        }
        return {**named, RESERVE: self.budget.reserve_bytes} if self.budget else named

    def can_fit(self, work: Work) -> bool:
        """Whether a plan for other work fits the same budget."""
        search = _Search(work, self.budget, dense=self.dense, eight_bit=self.eight_bit, resuming=self.resuming)
        return search.can_fit()

    def for_budget(self, budget: Budget) -> Plan:
        """The plan for the same work in another budget."""
        return make_plan(self.work, budget, dense=self.dense, eight_bit=self.eight_bit, resuming=self.resuming)

    @property
    def total_bytes(self) -> int:
        """The predicted peak, the reserve included."""
        return self.parts.total + (self.budget.reserve_bytes if self.budget else 0)

    @property
    def fits(self) -> bool:
        return self.budget is None or self.total_bytes + self.parts.total * _MARGIN <= self.budget.total_bytes

    @cached_property
    def placement(self) -> Placement:
        """For the host: which blocks are recomputed, by position among those that can be, and where weights lie."""
        blocks = all_blocks(self.work)
        able = [index for index, block in enumerate(blocks) if block.recomputable]
        chosen = set(recompute_order(self.work)[: self.savings.recomputed])
        positions = frozenset(position for position, index in enumerate(able) if index in chosen)
        return Placement(positions, self.savings.int8_base, self.savings.streamed)

    @property
    def recipe(self) -> Recipe:
        """The recipe as the plan changes it: how a step is computed, never which images it learns from."""
        training, savings = self.work.recipe.training, self.savings
        micro_batches = training.gradient_accumulation_steps * training.train_batch_size // savings.batch
        changed = replace(
            training,
            train_batch_size=savings.batch,
            gradient_accumulation_steps=micro_batches,
            # If the device replaces the recipe's optimizer anyway, the recipe keeps its own name for it.
            optimizer=training.optimizer if savings.optimizer == self.work.optimizer else savings.optimizer,
            fused_backward_pass=savings.fused,
        )
        return replace(self.work.recipe, training=changed)


def make_plan(
    work: Work,
    budget: Budget | None,
    *,
    dense: bool = True,
    eight_bit: bool = True,
    resuming: bool = False,
    ram_bytes: int | None = None,
) -> Plan:
    """The plan that fits `budget` at the least cost, or the smallest one if none does.

    Adds savings in the order of what they cost in speed and quality, until everything fits with all blocks recomputed;
    then drops those that are not needed after all, and recomputes as few blocks as possible.

    Args:
        dense: the host's weights are plain tensors, so they can be stored in 8 bits or offloaded.
        eight_bit: 8-bit optimizers are available.
        resuming: steps stay as the recipe says, which is how the run began; only the model's placement is planned.
        ram_bytes: RAM of the machine, for a run on the CPU without a budget: no more blocks are recomputed than half of
            it asks for. Not what is free now: recomputing changes the last digits, and the same seed must give the same
            file.
    """
    search = _Search(work, budget, dense=dense, eight_bit=eight_bit, resuming=resuming)
    return search.as_written(ram_bytes) if budget is None else search.cheapest()


class _Search:
    def __init__(self, work: Work, budget: Budget | None, *, dense: bool, eight_bit: bool, resuming: bool) -> None:
        self.work, self.budget, self.dense, self.eight_bit, self.resuming = work, budget, dense, eight_bit, resuming
        self.blocks = sum(block.recomputable for block in all_blocks(work))
        training = work.recipe.training
        self.recipe_savings = Savings(
            recomputed=self.blocks if training.gradient_checkpointing else 0,
            fused=training.fused_backward_pass,
            int8_base=False,
            streamed=0.0,
            optimizer=work.optimizer,
            batch=training.train_batch_size,
        )

    def as_written(self, ram_bytes: int | None = None) -> Plan:
        """The recipe without further savings, recomputing only what `ram_bytes` of memory asks for."""
        plan = self._plan(self.recipe_savings)
        if ram_bytes is None or not self.recipe_savings.recomputed:
            return plan
        in_ram = _Search(
            self.work, Budget(round(ram_bytes * _RAM_SHARE), 0),
            dense=self.dense, eight_bit=self.eight_bit, resuming=self.resuming,
        )  # fmt: skip
        return self._plan(in_ram._recompute_fewest(self.recipe_savings))

    def cheapest(self) -> Plan:
        plans = []
        # The candidates only shrink, so the first that fits costs least.
        for savings in self._candidates():
            plans.append(self._plan(savings))
            if plans[-1].fits:
                return self._plan(self._recompute_fewest(self._drop_unneeded(savings)))
        return min(plans, key=lambda plan: plan.total_bytes)

    def can_fit(self) -> bool:
        candidates = list(self._candidates())
        # A smaller batch can take more than a larger one, whose gradients need not be kept.
        smallest = [savings for savings in candidates if savings.streamed == candidates[-1].streamed]
        return any(self._plan(savings).fits for savings in reversed(smallest))

    def _candidates(self) -> Iterator[Savings]:
        """Ever smaller ones; each adds one saving to those before."""
        savings = replace(self.recipe_savings, recomputed=self.blocks)
        # Gradient checkpointing alone: exact, and costs nothing but time.
        yield savings
        if savings.optimizer == "AdamW" and self.eight_bit and not self.resuming:
            savings = replace(savings, optimizer="AdamW8bit")
            yield savings
        recipe = self.work.recipe
        # Accumulation and prior preservation need gradients kept; Prodigy needs all of them at once.
        keeps = recipe.training.gradient_accumulation_steps > 1 or recipe.evaluation.prior_preservation
        can_fuse = not keeps and not needs_all_gradients(savings.optimizer)
        if can_fuse and not savings.fused and not self.resuming:
            # Exact but for clipping, and needs no more time.
            savings = replace(savings, fused=True)
            yield savings
        if self.dense:
            # 8 bits first: they cost less speed, and halve what each offloaded weight transfers.
            if self.work.weight_bytes > 1:
                savings = replace(savings, int8_base=True)
                yield savings
            for step in range(1, round(1 / _OFFLOAD_STEP) + 1):
                # Slow: weights cross the bus for each use.
                savings = replace(savings, streamed=step * _OFFLOAD_STEP)
                yield savings
        while savings.batch > 1 and not self.resuming:
            # Accumulated gradients must survive backward, so the fused backward pass is off.
            savings = replace(savings, batch=_largest_divisor(savings.batch), fused=False)
            yield savings

    def _drop_unneeded(self, savings: Savings) -> Savings:
        """Drops what an earlier candidate added, if it still fits without."""
        recipe = self.recipe_savings
        attempts: list[dict[str, Any]] = [
            {"streamed": 0.0},
            # Never int8 alone: what is still offloaded transfers in half the time with it.
            {"streamed": 0.0, "int8_base": False},
            {"fused": recipe.fused},
            {"optimizer": recipe.optimizer},
        ]
        for lighter in attempts:
            attempt = replace(savings, **lighter)
            if self._plan(attempt).fits:
                savings = attempt
        return savings

    def _recompute_fewest(self, savings: Savings) -> Savings:
        """Bisection: each block that is recomputed takes less memory, so what fits is monotonic."""
        low, high = 0, savings.recomputed
        while low < high:
            middle = (low + high) // 2
            if self._plan(replace(savings, recomputed=middle)).fits:
                high = middle
            else:
                low = middle + 1
        return replace(savings, recomputed=high)

    def _plan(self, savings: Savings) -> Plan:
        parts = predict(self.work, savings)
        return Plan(self.work, savings, parts, self.budget, self.blocks, self.dense, self.eight_bit, self.resuming)


def _largest_divisor(number: int) -> int:
    """The largest divisor below the number itself."""
    # Batches of one size, or accumulation would weight images unequally.
    return next(divisor for divisor in range(number // 2, 0, -1) if number % divisor == 0)
