"""bitsandbytes' optimizers in flat buffers, beside bitsandbytes' own."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lib_trainer.models import flat_step
from lib_trainer.models.flat_step import flat, unwaiting
from lib_trainer.models.optimizers import SOURCES

# Whole blocks of 256 and parts of one; above and below the 4096 elements whose states bitsandbytes keeps in 32 bits.
SHAPES = [(32, 160), (8, 8, 3, 3), (320,), (4097,), (123, 77), (7,), (64, 64), (3, 5), (5000,)]
KINDS = [name for name, source in SOURCES.items() if source.flat]


def parameters() -> list[nn.Parameter]:
    drawn = torch.Generator().manual_seed(1)
    return [nn.Parameter(torch.randn(shape, generator=drawn) * 0.02) for shape in SHAPES]


def made(name: str, params: Sequence[nn.Parameter], flattened: bool) -> torch.optim.Optimizer:
    kind = pytest.importorskip("bitsandbytes.optim") and SOURCES[name].load()
    groups = [{"params": params[:6], "lr": 1e-3}, {"params": params[6:], "lr": 3e-4}]
    return (flat(kind) if flattened else kind)(groups, weight_decay=0.1)


def take(optimizer: torch.optim.Optimizer, params: Sequence[nn.Parameter], steps: range) -> None:
    """Gradients of many sizes; every third step some parameters have none, as with module dropout."""
    for step in steps:
        drawn = torch.Generator().manual_seed(step)
        for index, parameter in enumerate(params):
            gradient = torch.randn(parameter.shape, generator=drawn) * 10 ** torch.randn((), generator=drawn)
            parameter.grad = None if step % 3 == 2 and index % 4 == 1 else gradient
        optimizer.step()


def everything(optimizer: torch.optim.Optimizer, params: Sequence[nn.Parameter]) -> list[Any]:
    return [(parameter.detach(), sorted(optimizer.state[parameter].items())) for parameter in params]


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    return all(map(same, one, other)) if isinstance(one, (list, tuple)) else one == other


@pytest.mark.parametrize("name", KINDS)
def test_weights_and_states_are_bitsandbytes_own(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flat_step, "BUCKET_ELEMENTS", 10_000)
    own, ours = parameters(), parameters()
    theirs, flattened = made(name, own, False), made(name, ours, True)
    for step in range(7):
        take(theirs, own, range(step, step + 1))
        take(flattened, ours, range(step, step + 1))
        assert same(everything(theirs, own), everything(flattened, ours))
    assert not same(ours, parameters())


@pytest.mark.parametrize("name", [name for name, source in SOURCES.items() if source.unwaiting])
def test_without_waits_it_is_bitsandbytes_own_step(name: str) -> None:
    kind = pytest.importorskip("bitsandbytes.optim") and SOURCES[name].load()
    own, ours = parameters(), parameters()
    theirs, without = kind(own, lr=1e-3), unwaiting(kind)(ours, lr=1e-3)
    for optimizer, params in ((theirs, own), (without, ours)):
        take(optimizer, params, range(4))
    assert same(everything(theirs, own), everything(without, ours)) and not same(ours, parameters())


@pytest.mark.parametrize(("first", "second"), [(False, True), (True, False), (True, True)])
@pytest.mark.parametrize("name", KINDS)
def test_states_go_over_both_ways(name: str, first: bool, second: bool) -> None:
    """Of an earlier release, which kept them by parameter, and back to it."""
    whole = parameters()
    take(unbroken := made(name, whole, False), whole, range(6))
    before = parameters()
    take(optimizer := made(name, before, first), before, range(3))
    after = [nn.Parameter(parameter.detach().clone()) for parameter in before]
    resumed = made(name, after, second)
    for old, new in zip(before, after, strict=True):
        resumed.state[new] = copy.deepcopy(optimizer.state[old])
    take(resumed, after, range(3, 6))
    assert same(everything(unbroken, whole), everything(resumed, after))


def test_a_parameter_that_was_moved_or_lost_its_state_is_taken_in_again() -> None:
    """A layer whose first step overflowed has no state; a module that goes to a device and back has new weights."""
    own, ours = parameters(), parameters()
    theirs, flattened = made("AdamW8bit", own, False), made("AdamW8bit", ours, True)
    for optimizer, params in ((theirs, own), (flattened, ours)):
        take(optimizer, params, range(2))
        del optimizer.state[params[0]]
        params[3].data = params[3].data + 1
        take(optimizer, params, range(2, 5))
    assert same(everything(theirs, own), everything(flattened, ours))


def test_a_large_bucket_is_one_launch_without_a_copy_of_its_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    parameter = nn.Parameter(torch.ones(256 * 40))
    optimizer = flat(pytest.importorskip("bitsandbytes.optim").AdamW8bit)([parameter])
    seen: list[Tensor] = []
    step = type(optimizer).update_step

    def note(self: Any, group: Any, weights: Tensor, *where: int) -> None:
        seen.append(weights.grad)
        step(self, group, weights, *where)

    monkeypatch.setattr(type(optimizer), "update_step", note)
    parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert [gradient.data_ptr() for gradient in seen] == [parameter.grad.data_ptr()]
