"""Outputs and gradients against plain autograd through the formulas written out, in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lib_trainer.adapter.delta_weight import DELTAS
from lib_trainer.adapter.kernels.autograd import Form, LayerOp, applied
from lib_trainer.adapter.kernels.dispatch import MEASURED, form_of, way_for
from lib_trainer.adapter.kernels.strategies import Whole
from lib_trainer.adapter.modules import AdapterModule
from lib_trainer.memory.storage_peak import StoragePeak
from tests.adapter.layers import CASES, OPERATIONS, RECIPES, a_weight, an_input, lively_factors


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


def form_in(way: str, factors: AdapterModule, operation: LayerOp, *, precise: bool = True) -> Form:
    """The layer by a given way; `plain` builds ΔW as autograd does it."""
    scale = factors.strength * factors.scale
    if way == "plain":
        return Whole(operation, lambda values: DELTAS[factors.algo](values) * scale)
    return form_of(way, factors.algo, factors.tensors, operation, scale, precise=precise)


@pytest.mark.parametrize(("recipe", "name"), CASES)
@pytest.mark.parametrize("way", ["chosen", "plain", *MEASURED])
def test_outputs_and_gradients_equal_plain_autograd(recipe: str, name: str, way: str) -> None:
    operation = OPERATIONS[name]
    factors = lively_factors(recipe, operation)
    factors.strength = 0.7
    x, (weight, bias) = an_input(operation).requires_grad_(), a_weight(operation)
    inputs = [x, *factors.parameters()]
    expected = plain(operation, x, weight + 0.7 * written_out_delta(factors).reshape(weight.shape), bias)

    def read(like: Tensor) -> tuple[Tensor, Tensor]:
        return weight, bias

    form = factors.form(operation, x) if way == "chosen" else form_in(way, factors, operation)
    actual = applied(form, read, x, factors.tensors)
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)
    for mine, theirs in zip(gradients(actual, inputs), gradients(expected, inputs), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("recipe", list(RECIPES))
@pytest.mark.parametrize("name", ["linear", "3x3"])
def test_rows_that_sit_out_take_no_part(recipe: str, name: str) -> None:
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


@pytest.mark.parametrize("way", MEASURED)
@pytest.mark.parametrize("recipe", ["loha", "lokr", "locon"])
def test_large_weights_are_built_some_rows_at_a_time(recipe: str, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows in blocks, and places in pieces, the last ones smaller, give what all at once give."""
    operation = OPERATIONS["wide linear"]
    for limit in ("_LEAST_AT_ONCE", "_MOST_AT_ONCE"):
        monkeypatch.setattr(f"lib_trainer.adapter.kernels.tiling.{limit}", 40 * operation.shape[1])
    monkeypatch.setattr("lib_trainer.adapter.kernels.factored._PLACES_AT_ONCE", 4)
    test_outputs_and_gradients_equal_plain_autograd(recipe, "wide linear", way)


@pytest.mark.parametrize("way", ["plain", *MEASURED])
@pytest.mark.parametrize("recipe", ["loha", "loha tucker", "lokr", "locon"])
@pytest.mark.parametrize("name", ["linear", "3x3"])
def test_backward_keeps_only_the_input_and_the_factors(recipe: str, name: str, way: str) -> None:
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
        applied(form_in(way, factors, operation), lambda like: (weight, bias), x, factors.tensors)
    assert kept == []


@pytest.mark.parametrize("way", MEASURED)
@pytest.mark.parametrize("recipe", ["loha", "lokr", "locon"])
def test_a_frozen_first_layer_asks_for_no_gradient_of_its_input(recipe: str, way: str) -> None:
    operation = OPERATIONS["linear"]
    factors = lively_factors(recipe, operation)
    weight, bias = a_weight(operation)
    wanted, mine = [], []
    for x, found in ((an_input(operation).requires_grad_(), wanted), (an_input(operation), mine)):
        y = applied(form_in(way, factors, operation), lambda like: (weight, bias), x, factors.tensors)
        found += gradients(y, list(factors.parameters()))
    torch.testing.assert_close(mine, wanted)


@pytest.mark.parametrize("name", ["linear", "wide linear"])
def test_loha_at_a_few_places_computes_the_same(name: str) -> None:
    test_outputs_and_gradients_equal_plain_autograd("loha", name, "few")
    test_backward_keeps_only_the_input_and_the_factors("loha", name, "few")
    test_a_frozen_first_layer_asks_for_no_gradient_of_its_input("loha", "few")


@pytest.mark.parametrize(("places", "is_few"), [(1, True), (100, False)])
def test_loha_at_a_few_places_builds_nothing_of_the_weights_size(places: int, is_few: bool) -> None:
    operation = LayerOp((256, 256))
    factors = lively_factors("loha", operation, dtype=torch.float32)
    x = torch.randn(places, 256, requires_grad=True)
    weight, bias = a_weight(operation, dtype=torch.float32)
    peak = StoragePeak()
    peak.ignore([x, weight, bias, *factors.parameters()])
    with peak:
        y = factors.apply_to(operation, lambda like: (weight, bias), x)
        torch.autograd.grad(y, [x, *factors.parameters()], torch.ones_like(y))
    assert (peak.peak < weight.nbytes) == is_few


def test_few_places_are_told_from_many_by_what_they_take() -> None:
    pair = {"w1_a": (1280, 32), "w1_b": (32, 1280), "w2_a": (1280, 32), "w2_b": (32, 1280)}
    factors = {name: torch.empty(shape, device="meta") for name, shape in pair.items()}
    for places, is_few in ((1, True), (16, True), (20, False), (256, False)):
        way = way_for("loha", factors, LayerOp((1280, 1280)), (places, 1280), "cpu", precise=True)
        assert (way == "few") == is_few, places


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("places", [1, 10])
@pytest.mark.parametrize("recipe", ["loha", "lokr", "lokr full", "locon"])
def test_a_young_delta_survives_half_precision(recipe: str, places: int, dtype: torch.dtype) -> None:
    """ΔW of std 1e-5 on weights of std 0.03: merging would round most of it away."""
    operation = LayerOp((64, 64))
    factors = lively_factors(recipe, operation, dtype=torch.float32)
    factors.strength = float(1e-5 / factors.delta().detach().std())
    x = an_input(operation, dtype=torch.float32).flatten(0, 1)[:places].to(dtype)
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


def test_the_merged_way_would_have_lost_it() -> None:
    """Why half precision takes two products: the figure that the design decision rests on."""
    weight = 0.03 * torch.randn(256, 256, generator=torch.Generator().manual_seed(0))
    delta = 1e-5 * torch.randn(256, 256, generator=torch.Generator().manual_seed(1))
    base = weight.bfloat16()
    kept = ((base.float() + delta).bfloat16() != base).float().mean()
    assert kept < 0.2
