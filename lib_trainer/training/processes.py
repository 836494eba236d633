"""The processes that share out a run. Without torchrun there is one, and none of this does anything.

N processes share out the micro-batches of a step, and sum their gradients: they train as one process does that
accumulates N times as many. The first of them alone writes, evaluates and decides; the others take the same steps.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor

from lib_trainer.config.recipe import Recipe
from lib_trainer.errors import UserError
from lib_trainer.memory.plan import Plan

T = TypeVar("T")


class Dismissed(Exception):
    """The first process has ended the run; raised in the others."""


class ProcessLost(UserError):
    """Another process has ended in the middle of the run."""

    def __init__(self) -> None:
        super().__init__("Another process of this run has ended.", "The command resume continues from the saved state.")


class Processes:
    """One process alone; `lib_trainer.training.process_group` has several.

    Attributes:
        rank: number of this process; 0 is the first, which writes.
        count: of all.
        device: that this process trains on; None leaves the choice to the host.
    """

    rank = 0
    count = 1
    device: torch.device | None = None

    def share(self, count: int) -> list[tuple[int, bool]]:
        """(place, whether it counts) of each of a step's `count` micro-batches that this process computes.

        All compute equally many, since each takes part in every exchange: one too many computes the first again, which
        does not count.
        """
        places = range(self.rank, -(-count // self.count) * self.count, self.count)
        return [(place, True) if place < count else (0, False) for place in places]

    def of_first(self, value: T) -> T:
        """The first process's value. Raises Dismissed in the others when there is none to come."""
        return value

    def gathered(self, value: T) -> list[T]:
        """Everyone's value, by rank."""
        return [value]

    @contextmanager
    def first_ahead(self, *, asked: bool) -> Iterator[None]:
        """If `asked`, the others enter when the first process has left: what it wrote, they read."""
        yield

    def begin(self, parameters: Iterable[Tensor]) -> None:
        """Waits for all; then everyone has the first process's weights."""

    def begin_step(self) -> None:
        """Before each step, however long the first process was busy. Raises Dismissed if it takes no more steps."""

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Sums each in place over all processes, which call this in the same order. Raises ProcessLost."""

    def sum_layer(self, number: int, tensors: Sequence[Tensor]) -> None:
        """The same for the gradients of layer `number`, within backward."""

    def sum_gradients(self, parameters: Sequence[Tensor]) -> None:
        """The same for all gradients after backward. None counts as zeros, and stays None where nobody has one."""

    def dismiss(self) -> None:
        """The first process ends the run for all."""


ALONE = Processes()


@contextmanager
def joined() -> Iterator[Processes]:
    """All processes of a torchrun, by the variables that it sets; one alone without it."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or "RANK" not in os.environ:
        yield ALONE
        return
    # Without torchrun PyTorch's distributed engine is not touched.
    from lib_trainer.training.process_group import ProcessGroup, device_of_process

    group = ProcessGroup(device=device_of_process())
    try:
        yield group
    finally:
        group.dismiss()
    # After a failure the others may not answer any more.
    group.leave()


def per_process(recipe: Recipe, processes: Processes) -> Recipe:
    """What one of them computes of a recipe for all: its share of the accumulation steps.

    Raises:
        UserError: a fused backward pass, which computes one micro-batch a step, does not allow that.
    """
    steps, count = recipe.training.gradient_accumulation_steps, processes.count
    if recipe.training.fused_backward_pass and steps > count:
        raise UserError(
            f"This run was begun by {steps} processes with a fused backward pass.",
            f"Resume it with torchrun --nproc_per_node={steps}.",
        )
    if recipe.training.fused_backward_pass and count > 1 and recipe.adapter.module_dropout:
        raise UserError(
            "Several processes cannot drop modules in a fused backward pass.",
            "Set module_dropout=0 or fused_backward_pass=false.",
        )
    return _accumulating(recipe, -(-steps // count))


def for_all(recipe: Recipe, processes: Processes, *, begun: Recipe | None) -> Recipe:
    """The recipe of all together, from what one of them computes.

    Args:
        begun: as the run began, if it is resumed: its steps stay the same, however many share them now.
    """
    own = recipe.training.gradient_accumulation_steps
    return _accumulating(recipe, begun.training.gradient_accumulation_steps if begun else own * processes.count)


def tightest(processes: Processes) -> Callable[[Plan], Plan]:
    """Makes of everyone's plan the one for the least memory: all must compute alike."""

    def choose(plan: Plan) -> Plan:
        return min(processes.gathered(plan), key=lambda plan: plan.budget.total_bytes if plan.budget else 0)

    return choose


def _accumulating(recipe: Recipe, steps: int) -> Recipe:
    return replace(recipe, training=replace(recipe.training, gradient_accumulation_steps=steps))
