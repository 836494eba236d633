"""In each number format, on a GPU too: outputs and gradients of every strategy against float64 on the CPU."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lib_trainer.adapter.kernels.autograd import apply_strategy
from tests.adapter.layers import CASES, OPERATIONS, a_weight, an_input, lively_factors
from tests.adapter.test_kernels import STRATEGIES, gradients, plain, strategy_of, written_out_delta

# Without a GPU, tests/memory/test_gpu.py says once that tests are left out.
GPU = [pytest.param("cuda", marks=pytest.mark.gpu)] if torch.cuda.is_available() else []
DEVICES = ["cpu", *GPU]
# Largest error as a share of the whole: a few roundings of each format.
CLOSE = {torch.float32: 1e-5, torch.float16: 3e-3, torch.bfloat16: 2.5e-2}

CASES_OF = [(dtype, name) for dtype in CLOSE for name in ("chosen", *STRATEGIES)]


@pytest.fixture(autouse=True)
def full_float32():
    """Convolutions would round their inputs to TF32's eleven bits."""
    with torch.backends.cudnn.flags(allow_tf32=False):
        yield


@pytest.mark.parametrize(("recipe", "name"), CASES)
@pytest.mark.parametrize(("dtype", "strategy"), CASES_OF, ids=str)
@pytest.mark.parametrize("device", DEVICES)
def test_outputs_and_gradients(recipe: str, name: str, dtype: torch.dtype, strategy: str, device: str) -> None:
    operation = OPERATIONS[name]
    exact = lively_factors(recipe, operation)
    x, (weight, bias) = an_input(operation), a_weight(operation)
    # What is rounded beforehand is not an error of the strategy.
    x, weight, bias = (tensor.to(dtype).double() for tensor in (x, weight, bias))
    x.requires_grad_()
    for parameter in exact.parameters():
        parameter.data = parameter.data.float().double()
    expected = plain(operation, x, weight + written_out_delta(exact).reshape(weight.shape), bias)

    factors = lively_factors(recipe, operation, dtype=torch.float32).to(device)
    x_there, *there = (tensor.detach().to(device, dtype) for tensor in (x, weight, bias))
    x_there.requires_grad_()
    precise = dtype == torch.float32
    if strategy == "chosen":
        made = factors.strategy(operation, x_there)
    else:
        made = strategy_of(strategy, factors, operation, precise=precise)
    actual = apply_strategy(made, lambda like: tuple(there), x_there, factors.tensors)
    assert actual.dtype == dtype
    assert difference([actual], [expected]) < CLOSE[dtype]
    (grad_x, *grads), (wanted_x, *wanted) = (
        gradients(y, [*given, *owner.parameters()])
        for y, given, owner in ((actual, [x_there], factors), (expected, [x], exact))
    )
    assert difference([grad_x], [wanted_x]) < CLOSE[dtype]
    assert difference(grads, wanted) < CLOSE[dtype]


def difference(actual: list[Tensor], expected: list[Tensor]) -> float:
    """As one vector: a factor's own gradient may be a sum that nearly cancels."""
    mine, theirs = (torch.cat([part.flatten().cpu().double() for part in parts]) for parts in (actual, expected))
    return float((mine - theirs).norm() / theirs.norm())
