"""Outputs and gradients against plain autograd through the formulas written out, in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lib_trainer.adapter.functional import PRODUCTS, Operation, merged
from lib_trainer.adapter.layers import Factors
from tests.adapter.layers import CASES, OPERATIONS, a_weight, an_input, lively_factors


def written_out_delta(factors: Factors) -> Tensor:
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


def plain(operation: Operation, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    if not operation.is_conv:
        return F.linear(x, weight, bias)
    settings = (operation.stride, operation.padding, operation.dilation, operation.groups)
    return F.conv2d(x, weight, bias, *settings)


def gradients(y: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).reshape(y.shape)
    return list(torch.autograd.grad((y * weights).sum(), inputs))


@pytest.mark.parametrize(("recipe", "name"), CASES)
@pytest.mark.parametrize("way", ["chosen", "merged", "product"])
def test_outputs_and_gradients_equal_plain_autograd(recipe: str, name: str, way: str) -> None:
    operation = OPERATIONS[name]
    factors = lively_factors(recipe, operation)
    if way == "product" and (factors.algo not in PRODUCTS or operation.groups != 1):
        pytest.skip("this kind of layer always builds ΔW")
    factors.strength = 0.7
    factors.row_mask = (torch.arange(operation.shape[0]) % 3 != 0).double()
    x, (weight, bias) = an_input(operation).requires_grad_(), a_weight(operation)
    inputs = [x, *factors.parameters()]

    mask = factors.row_mask.reshape(-1, *[1] * (weight.ndim - 1))
    expected = plain(operation, x, weight + 0.7 * mask * written_out_delta(factors).reshape(weight.shape), bias)
    if way == "chosen":
        actual = factors.apply_to(operation, lambda like: (weight, bias), x)
    elif way == "merged":
        read = lambda like: (weight, bias)  # noqa: E731
        actual = merged(operation, read, factors._scaled_delta, x, list(factors.parameters()))
    else:
        product = factors._masked(operation, PRODUCTS[factors.algo](operation, factors.tensors, x))
        actual = plain(operation, x, weight, bias) + product

    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)
    for mine, theirs in zip(gradients(actual, inputs), gradients(expected, inputs), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("recipe", ["loha", "loha tucker", "lokr", "locon"])
@pytest.mark.parametrize("name", ["linear", "3x3"])
def test_backward_keeps_only_the_input_and_the_factors(recipe: str, name: str) -> None:
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
        merged(operation, lambda like: (weight, bias), factors._scaled_delta, x, list(factors.parameters()))
    assert kept == []


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("recipe", ["loha", "lokr full", "locon"])
def test_a_young_delta_survives_half_precision(recipe: str, dtype: torch.dtype) -> None:
    """ΔW of std 1e-5 on weights of std 0.03: merging would round most of it away."""
    operation = Operation((64, 64))
    factors = lively_factors(recipe, operation, dtype=torch.float32)
    factors.strength = float(1e-5 / factors.delta().detach().std())
    x = an_input(operation, dtype=torch.float32).to(dtype)
    weight = (0.03 * a_weight(operation, dtype=torch.float32)[0]).to(dtype)

    with_delta = factors.apply_to(operation, lambda like: (weight, None), x)
    without = F.linear(x, weight)
    assert with_delta.dtype == dtype
    # The change itself, compared before the sum is rounded to the activations' format.
    change = merged(operation, None, factors._scaled_delta, x, list(factors.parameters())).float()
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
