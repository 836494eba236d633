"""Outputs and gradients against plain autograd through the formulas written out, in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lib_trainer.adapter.delta_weight import DELTAS
from lib_trainer.adapter.kernels.autograd import LayerOp, Strategy, apply_strategy
from lib_trainer.adapter.kernels.choices import KernelChoices
from lib_trainer.adapter.kernels.dispatch import build_strategy
from lib_trainer.adapter.kernels.strategies import Dense
from lib_trainer.adapter.modules import AdapterModule
from lib_trainer.memory.storage_peak import StoragePeak
from tests.adapter.layers import CASES, OPERATIONS, RECIPES, a_weight, an_input, lively_factors

STRATEGIES = ("dense", "dense_forward", "low_rank")


def written_out_delta(factors: AdapterModule) -> Tensor:
    """ΔW by the papers' index sums, with loops instead of the product's own functions."""
    f, scale = factors.tensors, factors.scale
    if factors.algo == "loha" and "t1" in f:
        one = torch.einsum("abkl,ao,bi->oikl", f["t1"], f["w1_a"], f["w1_b"])
        other = torch.einsum("abkl,ao,bi->oikl", f["t2"], f["w2_a"], f["w2_b"])
        return scale * one * other
    if factors.algo == "loha":
        return scale * torch.einsum("or,ri->oi", f["w1_a"], f["w1_b"]) * torch.einsum("or,ri->oi", f["w2_a"], f["w2_b"])
    if factors.algo == "locon" and "mid" in f:
        return scale * torch.einsum("ab...,oa,bi->oi...", f["mid"], f["up"][:, :, 0, 0], f["down"][:, :, 0, 0])
    if factors.algo == "locon":
        return scale * torch.einsum("or,ri->oi", f["up"].flatten(1), f["down"].flatten(1))
    first = f["w1"] if "w1" in f else f["w1_a"] @ f["w1_b"]
    if "w2" in f:
        second = f["w2"]
    elif "t2" in f:
        second = torch.einsum("abkl,ao,bi->oikl", f["t2"], f["w2_a"], f["w2_b"])
    else:
        second = f["w2_a"] @ f["w2_b"]
    rows = [torch.cat([first[i, j] * second for j in range(first.shape[1])], dim=1) for i in range(first.shape[0])]
    return scale * torch.cat(rows, dim=0)


def plain(operation: LayerOp, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    if not operation.is_conv:
        return F.linear(x, weight, bias)
    settings = (operation.stride, operation.padding, operation.dilation, operation.groups)
    return F.conv2d(x, weight, bias, *settings)


def gradients(y: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).reshape(y.shape).to(y.device)
    return list(torch.autograd.grad((y * weights).sum(), inputs))


def strategy_of(name: str, factors: AdapterModule, operation: LayerOp, *, precise: bool = True) -> Strategy:
    """The layer's strategy of that name; `plain` builds ΔW as autograd does."""
    scale = factors.strength * factors.scale
    if name == "plain":
        return Dense(operation, lambda values: DELTAS[factors.algo](values) * scale)
    return build_strategy(name, factors.algo, factors.tensors, operation, scale, precise=precise)


@pytest.mark.parametrize(("recipe", "name"), CASES)
@pytest.mark.parametrize("strategy", ["chosen", "plain", *STRATEGIES])
def test_outputs_and_gradients_equal_plain_autograd(recipe: str, name: str, strategy: str) -> None:
    operation = OPERATIONS[name]
    factors = lively_factors(recipe, operation)
    factors.strength = 0.7
    x, (weight, bias) = an_input(operation).requires_grad_(), a_weight(operation)
    inputs = [x, *factors.parameters()]
    expected = plain(operation, x, weight + 0.7 * written_out_delta(factors).reshape(weight.shape), bias)

    def read(like: Tensor) -> tuple[Tensor, Tensor]:
        return weight, bias

    made = factors.strategy(operation, x) if strategy == "chosen" else strategy_of(strategy, factors, operation)
    actual = apply_strategy(made, read, x, factors.tensors)
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)
    for mine, theirs in zip(gradients(actual, inputs), gradients(expected, inputs), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("recipe", list(RECIPES))
@pytest.mark.parametrize("name", ["linear", "3x3"])
def test_dropped_rows_take_no_part(recipe: str, name: str) -> None:
    operation = OPERATIONS[name]
    factors = lively_factors(recipe, operation)
    factors.row_mask = (torch.arange(operation.shape[0]) % 3 != 0).double()
    x, (weight, bias) = an_input(operation).requires_grad_(), a_weight(operation)
    inputs = [x, *factors.parameters()]
    mask = factors.row_mask.reshape(-1, *[1] * (weight.ndim - 1))
    expected = plain(operation, x, weight + mask * written_out_delta(factors).reshape(weight.shape), bias)
    actual = factors.apply_to(operation, lambda like: (weight, bias), x)
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)
    for mine, theirs in zip(gradients(actual, inputs), gradients(expected, inputs), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("recipe", ["loha", "lokr", "locon"])
def test_large_weights_are_built_some_rows_at_a_time(
    recipe: str, strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows in tiles, and positions in pieces, the last ones smaller, give what all at once give."""
    operation = OPERATIONS["wide linear"]
    for limit in ("_MIN_TILE", "_MAX_TILE"):
        monkeypatch.setattr(f"lib_trainer.adapter.kernels.tiling.{limit}", 40 * operation.shape[1])
    monkeypatch.setattr("lib_trainer.adapter.kernels.factored._POSITIONS_AT_ONCE", 4)
    test_outputs_and_gradients_equal_plain_autograd(recipe, "wide linear", strategy)


@pytest.mark.parametrize("strategy", ["plain", *STRATEGIES])
@pytest.mark.parametrize("recipe", ["loha", "loha tucker", "lokr", "locon"])
@pytest.mark.parametrize("name", ["linear", "3x3"])
def test_backward_keeps_only_the_input_and_the_factors(recipe: str, name: str, strategy: str) -> None:
    operation = OPERATIONS[name]
    factors = lively_factors(recipe, operation, dtype=torch.float32)
    x = an_input(operation, dtype=torch.float32).requires_grad_()
    weight, bias = a_weight(operation, dtype=torch.float32)
    allowed = {x.data_ptr(), *(p.data_ptr() for p in factors.parameters())}
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in allowed:
            kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        apply_strategy(strategy_of(strategy, factors, operation), lambda like: (weight, bias), x, factors.tensors)
    assert kept == []


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("recipe", ["loha", "lokr", "locon"])
def test_a_frozen_first_layer_asks_for_no_gradient_of_its_input(recipe: str, strategy: str) -> None:
    operation = OPERATIONS["linear"]
    factors = lively_factors(recipe, operation)
    weight, bias = a_weight(operation)
    wanted, mine = [], []
    for x, found in ((an_input(operation).requires_grad_(), wanted), (an_input(operation), mine)):
        y = apply_strategy(strategy_of(strategy, factors, operation), lambda like: (weight, bias), x, factors.tensors)
        found += gradients(y, list(factors.parameters()))
    torch.testing.assert_close(mine, wanted)


@pytest.mark.parametrize("name", ["linear", "wide linear"])
def test_a_small_batch_computes_the_same(name: str) -> None:
    test_outputs_and_gradients_equal_plain_autograd("loha", name, "small_batch")
    test_backward_keeps_only_the_input_and_the_factors("loha", name, "small_batch")
    test_a_frozen_first_layer_asks_for_no_gradient_of_its_input("loha", "small_batch")


@pytest.mark.parametrize(("positions", "is_small"), [(1, True), (100, False)])
def test_a_small_batch_builds_nothing_of_the_weights_size(positions: int, is_small: bool) -> None:
    operation = LayerOp((256, 256))
    factors = lively_factors("loha", operation, dtype=torch.float32)
    # Where there are too many positions the layer has no such strategy.
    factors.compute_by(KernelChoices("small_batch"))
    x = torch.randn(positions, 256, requires_grad=True)
    weight, bias = a_weight(operation, dtype=torch.float32)
    peak = StoragePeak()
    peak.ignore([x, weight, bias, *factors.parameters()])
    with peak:
        y = factors.apply_to(operation, lambda like: (weight, bias), x)
        torch.autograd.grad(y, [x, *factors.parameters()], torch.ones_like(y))
    assert (peak.peak < weight.nbytes) == is_small


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("positions", [1, 10])
@pytest.mark.parametrize("recipe", ["loha", "lokr", "lokr full", "locon"])
def test_a_young_delta_survives_half_precision(recipe: str, positions: int, dtype: torch.dtype) -> None:
    """ΔW of std 1e-5 on weights of std 0.03: rounding W + ΔW to the nearest would lose most of it."""
    operation = LayerOp((64, 64))
    factors = lively_factors(recipe, operation, dtype=torch.float32)
    factors.strength = float(1e-5 / factors.delta().detach().std())
    x = an_input(operation, dtype=torch.float32).flatten(0, 1)[:positions].to(dtype)
    weight = (0.03 * a_weight(operation, dtype=torch.float32)[0]).to(dtype)

    with_delta = factors.apply_to(operation, lambda like: (weight, None), x)
    without = F.linear(x, weight)
    assert with_delta.dtype == dtype
    # The change itself, without a base that it would be rounded with.
    empty = torch.zeros(64, 64, dtype=dtype)
    change = factors.apply_to(operation, lambda like: (empty, None), x).float()
    wanted = F.linear(x.float(), factors.delta([64, 64]) * factors.strength)
    assert (change - wanted).norm() / wanted.norm() < 0.03
    torch.testing.assert_close(with_delta, (without.float() + wanted).to(dtype), rtol=2e-2, atol=2e-3)


def test_merging_would_have_lost_it() -> None:
    """Why half precision rounds stochastically: the figure that the design decision rests on."""
    weight = 0.03 * torch.randn(256, 256, generator=torch.Generator().manual_seed(0))
    delta = 1e-5 * torch.randn(256, 256, generator=torch.Generator().manual_seed(1))
    base = weight.bfloat16()
    kept = ((base.float() + delta).bfloat16() != base).float().mean()
    assert kept < 0.2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_with_dropout_a_young_delta_survives_half_precision_at_its_strength(dtype: torch.dtype) -> None:
    operation = LayerOp((64, 64))
    factors = lively_factors("lokr", operation, dtype=torch.float32)
    factors.strength = float(1e-5 / factors.delta().detach().std())
    x = an_input(operation, dtype=torch.float32).flatten(0, 1)[:10].to(dtype)
    weight = (0.03 * a_weight(operation, dtype=torch.float32)[0]).to(dtype)
    plain_change = factors.apply_to(operation, lambda like: (weight, None), x).float()
    factors.row_mask = torch.ones(64)
    masked = factors.apply_to(operation, lambda like: (weight, None), x).float()
    torch.testing.assert_close(masked, plain_change, rtol=2e-2, atol=2e-3)
    # The change itself, which rounding to the nearest would have lost.
    empty = torch.zeros(64, 64, dtype=dtype)
    change = factors.apply_to(operation, lambda like: (empty, None), x).float()
    wanted = F.linear(x.float(), factors.delta([64, 64]) * factors.strength)
    assert (change - wanted).norm() / wanted.norm() < 0.03


@pytest.mark.parametrize("name", ["linear", "3x3"])
def test_a_weight_in_another_memory_layout_is_as_good(name: str) -> None:
    """Transposed, or channels last, as WebUIs keep them."""
    operation = OPERATIONS[name]
    factors, x, (weight, bias) = lively_factors("lokr", operation), an_input(operation), a_weight(operation)
    other = weight.T.contiguous().T if weight.ndim == 2 else weight.to(memory_format=torch.channels_last)
    made = strategy_of("dense", factors, operation)
    found, expected = (apply_strategy(made, lambda like, w=w: (w, bias), x, factors.tensors) for w in (other, weight))
    assert other.stride() != weight.stride()
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
