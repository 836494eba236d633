"""Whether a run will fit before it begins, and the cheapest savings that make it fit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from lib_trainer.config.recipe import Recipe
from lib_trainer.memory.estimate import Parts, Savings, Work, all_stretches, predict, recompute_order
from lib_trainer.models.placement import Placement

GIB = 2**30
RESERVE = "reserve"
# A desktop's share of a graphics card, of which training cannot have.
DESKTOP_BYTES = round(0.8 * GIB)
# For what no tensor shows: the driver's context, workspaces of its libraries, and the gaps between the allocator's
# blocks, which take up to 0.7 GiB where a checkpoint is held in 8 bits.
RESERVE_BYTES = round(1.0 * GIB)
# Of that, what is taken already where free memory is measured.
CONTEXT_BYTES = round(0.3 * GIB)
# How far the prediction may be below the truth: simulated steps took up to 3 % more than predicted.
_DOUBT = 0.03
# Of the weights, in the steps in which more of them are streamed.
_STREAM_STEP = 1 / 16


@dataclass(frozen=True)
class Budget:
    """What training may fill.

    Attributes:
        total_bytes: all of it, the reserve included.
        reserve_bytes: what is kept free for all that is no tensor.
    """

    total_bytes: int
    reserve_bytes: int

    @classmethod
    def of_card(cls, gib: float) -> Budget:
        """A card of that size with a desktop on it."""
        return cls(round(gib * GIB) - DESKTOP_BYTES, RESERVE_BYTES)

    @classmethod
    def measured(cls, available_bytes: int) -> Budget:
        """What a running program finds free."""
        return cls(available_bytes, RESERVE_BYTES - CONTEXT_BYTES)


@dataclass(frozen=True)
class Plan:
    """A run and what it will take.

    Attributes:
        room: None where nobody knows how much there is, as on a CPU: then the recipe is taken at its word.
        blocks: how many could be recomputed.
        dense, eight_bit, settled: what it was made with; see `make_plan`.
    """

    work: Work
    savings: Savings
    parts: Parts
    budget: Budget | None
    blocks: int
    dense: bool = True
    eight_bit: bool = True
    settled: bool = False

    @property
    def named_parts(self) -> dict[str, int]:
        """What the memory goes to -> bytes, the reserve included."""
        parts = self.parts
        named = {
            "the checkpoint": parts.base,
            "the adapter": parts.adapter,
            "its optimizer": parts.optimizer,
            "gradients": parts.gradients,
            "activations": parts.activations,
            "working space": parts.working,
        }
        return {**named, RESERVE: self.budget.reserve_bytes} if self.budget else named

    def again(self, work: Work) -> Plan:
        """The plan for other work in the same room."""
        return make_plan(work, self.budget, dense=self.dense, eight_bit=self.eight_bit, settled=self.settled)

    def in_room(self, budget: Budget) -> Plan:
        """The plan for the same work in other room."""
        return make_plan(self.work, budget, dense=self.dense, eight_bit=self.eight_bit, settled=self.settled)

    @property
    def total_bytes(self) -> int:
        """The predicted peak, the reserve included."""
        return self.parts.total + (self.budget.reserve_bytes if self.budget else 0)

    @property
    def fits(self) -> bool:
        return self.budget is None or self.total_bytes + self.parts.total * _DOUBT <= self.budget.total_bytes

    @cached_property
    def placement(self) -> Placement:
        parts = all_stretches(self.work)
        able = [index for index, part in enumerate(parts) if part.recomputable]
        chosen = set(recompute_order(parts)[: self.savings.recomputed])
        places = frozenset(place for place, index in enumerate(able) if index in chosen)
        return Placement(places, self.savings.int8_base, self.savings.streamed)

    @property
    def recipe(self) -> Recipe:
        """The recipe with what the plan changes in it: how a step is taken, never what is learned from."""
        training, savings = self.work.recipe.training, self.savings
        micro_batches = training.gradient_accumulation_steps * training.train_batch_size // savings.batch
        changed = replace(
            training,
            train_batch_size=savings.batch,
            gradient_accumulation_steps=micro_batches,
            # Where another optimizer stands in for the recipe's anyway, that is not the plan's doing.
            optimizer=training.optimizer if savings.optimizer == self.work.optimizer else savings.optimizer,
            fused_backward_pass=savings.fused,
        )
        return replace(self.work.recipe, training=changed)


def make_plan(
    work: Work, budget: Budget | None, *, dense: bool = True, eight_bit: bool = True, settled: bool = False
) -> Plan:
    """The plan that fits `budget` at the least cost, or the smallest one if none does.

    Savings are added in the order of what they cost in speed and quality, until everything fits with all blocks
    recomputed; then those that are not needed after all are taken back, and as few blocks as possible recomputed.

    Args:
        dense: the host's weights are plain numbers, so that they can be stored in 8 bits or streamed.
        eight_bit: 8-bit optimizers can be had.
        settled: steps are taken as the recipe says, as in the run's earlier life; only where the model lies is planned.
    """
    search = _Search(work, budget, dense=dense, eight_bit=eight_bit, settled=settled)
    return search.literal() if budget is None else search.cheapest()


class _Search:
    def __init__(self, work: Work, budget: Budget | None, *, dense: bool, eight_bit: bool, settled: bool) -> None:
        self.work, self.budget, self.dense, self.eight_bit, self.settled = work, budget, dense, eight_bit, settled
        self.blocks = sum(part.recomputable for part in all_stretches(work))
        training = work.recipe.training
        self.wished = Savings(
            recomputed=self.blocks if training.gradient_checkpointing else 0,
            fused=training.fused_backward_pass,
            int8_base=False,
            streamed=0.0,
            optimizer=work.optimizer,
            batch=training.train_batch_size,
        )

    def literal(self) -> Plan:
        """The recipe as it stands."""
        return self._plan(self.wished)

    def cheapest(self) -> Plan:
        candidates = list(self._ladder())
        fitting = next((number for number, savings in enumerate(candidates) if self._plan(savings).fits), None)
        if fitting is None:
            return self._plan(min(candidates, key=lambda savings: self._plan(savings).total_bytes))
        savings = self._without_the_needless(candidates[fitting])
        return self._plan(self._with_the_least_recomputed(savings))

    def _ladder(self) -> Iterator[Savings]:
        """Ever smaller steps; each adds one saving to those before."""
        savings = replace(self.wished, recomputed=self.blocks)
        yield savings
        if savings.optimizer == "AdamW" and self.eight_bit and not self.settled:
            savings = replace(savings, optimizer="AdamW8bit")
            yield savings
        recipe = self.work.recipe
        # Summed passes and preservation need gradients kept, and Prodigy needs all of them at once.
        keeps = recipe.training.gradient_accumulation_steps > 1 or recipe.evaluation.prior_preservation
        can_fuse = not keeps and savings.optimizer != "Prodigy"
        if can_fuse and not savings.fused and not self.settled:
            savings = replace(savings, fused=True)
            yield savings
        if self.dense:
            # Streaming halves what is left of the weights' share again, so 8 bits come first.
            if self.work.weight_bytes > 1:
                savings = replace(savings, int8_base=True)
                yield savings
            for step in range(1, round(1 / _STREAM_STEP) + 1):
                savings = replace(savings, streamed=step * _STREAM_STEP)
                yield savings
        while savings.batch > 1 and not self.settled:
            # Passes that are summed up need their gradients kept.
            savings = replace(savings, batch=_largest_divisor(savings.batch), fused=False)
            yield savings

    def _without_the_needless(self, savings: Savings) -> Savings:
        """Takes back, where it still fits, what an earlier rung had added."""
        wished = self.wished
        attempts: list[dict[str, Any]] = [
            {"streamed": 0.0},
            # Weights in 8 bits are fetched in half the time, so they stay where some are streamed.
            {"streamed": 0.0, "int8_base": False},
            {"fused": wished.fused},
            {"optimizer": wished.optimizer},
        ]
        for lighter in attempts:
            attempt = replace(savings, **lighter)
            if self._plan(attempt).fits:
                savings = attempt
        return savings

    def _with_the_least_recomputed(self, savings: Savings) -> Savings:
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
        return Plan(self.work, savings, parts, self.budget, self.blocks, self.dense, self.eight_bit, self.settled)


def _largest_divisor(number: int) -> int:
    """The largest divisor below the number itself."""
    return next(divisor for divisor in range(number // 2, 0, -1) if number % divisor == 0)
