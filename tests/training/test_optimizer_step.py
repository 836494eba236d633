from __future__ import annotations

import copy
import math
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from lib_trainer.errors import MissingPackage
from lib_trainer.models.optimizers import build_optimizer
from lib_trainer.training.layer_snapshot import LayerSnapshot
from lib_trainer.training.loss_scale import LossScale
from lib_trainer.training.optimizer_step import Diverged, FusedBackwardStep, OptimizerStep, StepMethod
from tests.training.small import InfiniteGradient

WIDTH, LAYERS = 8, 5


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*[layer for _ in range(LAYERS) for layer in (nn.Linear(WIDTH, WIDTH), nn.Tanh())])


def optimizer_of(net: nn.Module, kind: type = torch.optim.AdamW) -> torch.optim.Optimizer:
    layers = [part for part in net.modules() if isinstance(part, nn.Linear)]
    return kind([{"params": list(layer.parameters()), "lr": 0.01} for layer in layers])


def scaler(enabled: bool = False) -> LossScale:
    return LossScale(enabled, 2.0**10)


def take(update: StepMethod, loss_of: Callable[[], Tensor], steps: int = 6) -> None:
    with update.hooked():
        for number in range(1, steps + 1):
            loss = loss_of()
            update.backward(loss)
            update.finish(loss.detach(), number)


def loss_over(net: nn.Module) -> Callable[[], Tensor]:
    x = torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(1))
    return lambda: (net(x) - 1).square().mean()


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD])
@pytest.mark.parametrize("scaled", [False, True])
def test_steps_within_backward_are_the_steps_after_it(kind: type, scaled: bool) -> None:
    whole, fused = network(), network()
    take(OptimizerStep(optimizer_of(whole, kind), scaler(scaled), float("inf")), loss_over(whole))
    take(FusedBackwardStep(optimizer_of(fused, kind), scaler(scaled), float("inf")), loss_over(fused))
    start = list(network().parameters())
    for a, b, before in zip(whole.parameters(), fused.parameters(), start, strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, before)


def test_no_gradient_outlives_its_layer() -> None:
    net = network()
    alive: list[int] = []
    for part in net:
        part.register_full_backward_hook(lambda *_: alive.append(sum(p.grad is not None for p in net.parameters())))
    take(FusedBackwardStep(optimizer_of(net), scaler(), float("inf")), loss_over(net), steps=1)
    assert max(alive) <= 2 and all(p.grad is None for p in net.parameters())


def test_each_layer_is_clipped_by_its_own_norm() -> None:
    net, limit = network(), 1e-3
    before = copy.deepcopy(net)
    update = FusedBackwardStep(optimizer_of(net, torch.optim.SGD), scaler(), limit)
    take(update, loss_over(net), steps=1)
    for old, new in zip(before, net, strict=True):
        if isinstance(old, nn.Linear):
            moved = [(a - b) / 0.01 for a, b in zip(old.parameters(), new.parameters(), strict=True)]
            assert torch.cat([m.flatten() for m in moved]).norm().item() == pytest.approx(limit, rel=1e-2)


def test_a_layer_that_gets_no_gradient_waits_for_the_next_step() -> None:
    net = network()
    x = torch.ones(1, WIDTH)
    update = FusedBackwardStep(optimizer_of(net, torch.optim.SGD), scaler(), float("inf"))
    first = net[0].weight.detach().clone()
    take(update, lambda: net[2:](x).square().sum(), steps=1)
    assert torch.equal(first, net[0].weight)
    take(update, lambda: net(x).square().sum(), steps=1)
    assert not torch.equal(first, net[0].weight)


def test_gradients_that_are_no_numbers_stop_training_and_spoil_nothing() -> None:
    net = network()
    update = FusedBackwardStep(optimizer_of(net), scaler(), 1.0)
    x = torch.ones(1, WIDTH)
    with pytest.raises(Diverged, match="step 1"):
        take(update, lambda: net[4:](InfiniteGradient.apply(net[:4](x))).square().sum(), steps=1)
    assert all(torch.isfinite(p).all() for p in net.parameters())


def test_with_loss_scaling_the_scale_falls_instead_and_grows_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lib_trainer.training.loss_scale._GROWTH_STEPS", 3)
    net, grads = network(), scaler(enabled=True)
    update = FusedBackwardStep(optimizer_of(net), grads, 1.0)
    x = torch.ones(1, WIDTH)
    take(update, lambda: net[4:](InfiniteGradient.apply(net[:4](x))).square().sum(), steps=1)
    assert grads.value == 2.0**9
    take(update, loss_over(net), steps=3)
    assert grads.value == 2.0**10
    assert all(torch.isfinite(p).all() for p in net.parameters())


def spoiled(net: nn.Sequential) -> Tensor:
    """A finite loss whose gradients are infinite in the first two layers only."""
    x = torch.ones(1, WIDTH)
    return net[4:](InfiniteGradient.apply(net[:4](x))).square().sum()


def everything(optimizer: torch.optim.Optimizer, layer: nn.Module) -> list[str]:
    """Weights and optimizer state of a layer, as text."""
    parameters = list(layer.parameters())
    states = [sorted(optimizer.state.get(parameter, {}).items()) for parameter in parameters]
    with torch.no_grad():
        return [repr([p.tolist() for p in parameters]), repr(states)]


@pytest.mark.parametrize("name", ["AdamW", "Lion", "CAME", "Adan", "StableAdamW", "AdamWScheduleFree", "Adafactor"])
def test_a_layer_with_infinite_gradients_stays_as_it_was_with_its_momentum(name: str) -> None:
    net = network()
    layers = [part for part in net if isinstance(part, nn.Linear)]
    groups = [{"params": list(layer.parameters()), "lr": 0.01} for layer in layers]
    try:
        optimizer = build_optimizer(name, groups, 0.1, {})
    except MissingPackage:
        pytest.skip(f"{name} is not installed")
    update = FusedBackwardStep(optimizer, scaler(enabled=True), 1.0)
    # Once without any state, and once after it has gathered momentum.
    for steps in (0, 3):
        take(update, loss_over(net), steps=steps)
        before = [everything(optimizer, layer) for layer in layers]
        take(update, lambda: spoiled(net), steps=1)
        after = [everything(optimizer, layer) for layer in layers]
        assert after[:2] == before[:2]
        assert all(new != old for new, old in zip(after[2:], before[2:], strict=True))


def test_the_last_good_weights_are_those_before_the_step_that_diverged() -> None:
    net = network()
    update = FusedBackwardStep(optimizer_of(net), scaler(), 1.0)
    take(update, loss_over(net), steps=3)
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(Diverged, match="step 1"):
        take(update, lambda: net(torch.full((1, WIDTH), float("nan"))).sum(), steps=1)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_what_an_optimizer_counts_in_its_group_is_taken_back_too() -> None:
    """Schedule-Free optimizers and Prodigy keep their step number there."""
    parameter = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([{"params": [parameter], "k": 4}], lr=0.1, momentum=0.9)
    (group,) = optimizer.param_groups
    for overflow, count, weight in ((False, 5, 0.9), (True, 5, 0.9)):
        snapshot = LayerSnapshot(optimizer, group)
        parameter.grad = torch.full((2,), math.nan if overflow else 1.0)
        optimizer.step()
        group["k"] += 1
        restore = snapshot.undo_on_device(torch.tensor(overflow))
        if overflow:
            restore()
        assert group["k"] == count and parameter.tolist() == pytest.approx([weight] * 2)


@pytest.mark.parametrize("stepped_before", [False, True])
def test_no_copy_of_a_layer_outlives_its_own_step(stepped_before: bool) -> None:
    """Else the fused backward pass would hold a copy of all weights and states, more than it saves."""
    parameter = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW([{"params": [parameter]}], lr=0.1)
    parameter.grad = torch.ones(2)
    if stepped_before:
        optimizer.step()
    snapshot = LayerSnapshot(optimizer, optimizer.param_groups[0])
    optimizer.step()
    restore = snapshot.undo_on_device(torch.tensor(True))
    alive = weakref.ref(snapshot)
    del snapshot
    assert alive() is None and callable(restore)
