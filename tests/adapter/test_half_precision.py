"""Half precision: W + ΔW keeps a young ΔW, products are in half precision, and training follows that in float32."""

from __future__ import annotations

import math
from functools import lru_cache

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lib_trainer.adapter.kernels.autograd import LayerOp, apply_strategy
from lib_trainer.adapter.kernels.half import round_stochastically
from lib_trainer.adapter.modules import AdapterModule
from tests.adapter.layers import a_weight, an_input, lively_factors
from tests.adapter.test_kernels import STRATEGIES, gradients, strategy_of

HALVES = (torch.float16, torch.bfloat16)
_MANTISSA = {torch.float16: 10, torch.bfloat16: 7}
LAYERS = {"linear": LayerOp((128, 96)), "3x3": LayerOp((48, 32, 3, 3), padding=(1, 1))}
# Every adapter on the layers it has of its own, by every strategy.
ADAPTED = [
    *[(recipe, layer) for recipe in ("loha", "lokr", "lokr full", "locon") for layer in LAYERS],
    *[(recipe, "3x3") for recipe in ("loha tucker", "lokr tucker", "locon tucker")],
]
RUNS = [
    *[(recipe, layer, name) for recipe, layer in ADAPTED for name in STRATEGIES],
    ("loha", "linear", "small_batch"),
]
HALF_RUNS = [(*run, dtype) for run in RUNS for dtype in HALVES]
STEPS = 20


def young_factors(recipe: str, operation: LayerOp) -> AdapterModule:
    """ΔW of 1e-5 of the size of a weight of std 0.03, by a factor that begins at zero."""
    factors = lively_factors(recipe, operation, dtype=torch.float32)
    late = "w2_a" if factors.algo == "loha" else "up" if factors.algo == "locon" else factors.names[-1]
    with torch.no_grad():
        getattr(factors, late).mul_(float(0.03e-5 / factors.delta().std()))
    return factors


@lru_cache
def trained(recipe: str, layer: str, strategy: str, dtype: torch.dtype) -> Tensor:
    """What the factors have moved by in twenty steps of gradient descent, as one vector."""
    operation = LAYERS[layer]
    # The same numbers in each dtype: what is rounded beforehand is no error of the strategy.
    weight = (0.03 * a_weight(operation, dtype=torch.float32)[0]).bfloat16().half().to(dtype)
    x = an_input(operation, dtype=torch.float32).bfloat16().half().to(dtype)
    factors = young_factors(recipe, operation)
    before = [parameter.detach().clone() for parameter in factors.parameters()]
    made = strategy_of(strategy, factors, operation, precise=dtype == torch.float32)
    with torch.no_grad():
        target = torch.randn(operation(x, weight).shape, generator=torch.Generator().manual_seed(3))
    for _ in range(STEPS):
        y = apply_strategy(made, lambda like: (weight, None), x, factors.tensors)
        grads = torch.autograd.grad((y.float() - target).square().sum(), list(factors.parameters()))
        with torch.no_grad():
            for parameter, grad in zip(factors.parameters(), grads, strict=True):
                # So far that the young factor grows by its own size about once.
                parameter -= 1e-9 * grad
    moved = [after.detach() - start for after, start in zip(factors.parameters(), before, strict=True)]
    return torch.cat([part.flatten() for part in moved])


@pytest.mark.parametrize(("recipe", "layer", "strategy", "dtype"), HALF_RUNS, ids=str)
def test_a_young_adapter_trains_as_in_float32(recipe: str, layer: str, strategy: str, dtype: torch.dtype) -> None:
    wanted, found = trained(recipe, layer, "dense", torch.float32), trained(recipe, layer, strategy, dtype)
    assert wanted.norm() > 0
    assert (found - wanted).norm() / wanted.norm() < 0.02


@pytest.mark.parametrize(("recipe", "layer", "strategy", "dtype"), HALF_RUNS, ids=str)
def test_gradients_point_where_those_of_float64_do(recipe: str, layer: str, strategy: str, dtype: torch.dtype) -> None:
    operation = LAYERS[layer]
    found = []
    for made in (torch.float64, dtype):
        factors = young_factors(recipe, operation).to(torch.float64 if made == torch.float64 else torch.float32)
        weight = (0.03 * a_weight(operation, dtype=torch.float32)[0]).bfloat16().half().to(made)
        x = an_input(operation, dtype=torch.float32).bfloat16().half().to(made).requires_grad_()
        chosen = strategy_of(strategy, factors, operation, precise=made == torch.float64)
        y = apply_strategy(chosen, lambda like, weight=weight: (weight, None), x, factors.tensors)
        found.append([grad.double() for grad in gradients(y, [x, *factors.parameters()])])
    for wanted, mine in zip(*found, strict=True):
        # A gradient that is zero has no direction.
        assert wanted.norm() > 0
        assert F.cosine_similarity(wanted.flatten(), mine.flatten(), dim=0) > 0.999


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("size", [1e-5, 1e-4, 1e-2])
def test_rounding_keeps_a_small_delta_on_average(dtype: torch.dtype, size: float) -> None:
    drawn = torch.Generator().manual_seed(0)
    weight = (0.03 * torch.randn(1024, 1024, generator=drawn)).to(dtype)
    delta = 0.03 * size * torch.randn(1024, 1024, generator=drawn)
    rounded = round_stochastically(weight.float() + delta, dtype)
    moved = rounded.float() - weight.float()
    kept = float((moved * delta).sum() / delta.square().sum())
    # To the nearest, float16 keeps some of 1e-4 and bfloat16 nothing.
    assert abs(kept - 1) < 0.1
    # One unit of the dtype at most; float16 has none below 2^-24.
    unit = ((weight.float() + delta).abs() * 2.0 ** -_MANTISSA[dtype]).clamp_min(2.0**-24)
    assert bool((moved.abs() <= unit + delta.abs()).all())


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_rounding_is_the_same_every_time_and_in_tiles(dtype: torch.dtype) -> None:
    total = torch.randn(300, 200, generator=torch.Generator().manual_seed(0))
    total[:, 7] = 0
    total[5] = -(2.0**-126)
    whole = round_stochastically(total.clone(), dtype)
    assert torch.equal(whole, round_stochastically(total.clone(), dtype))
    tiles = [round_stochastically(part.clone(), dtype, 90 * i) for i, part in enumerate(total.split(90))]
    assert torch.equal(whole, torch.cat(tiles))
    assert bool(whole.isfinite().all())
    assert whole[:, 7][whole[:, 7] != 0].numel() <= 1


class Products(TorchDispatchMode):
    """Notes the operands and results of matrix products and convolutions: dtype and elements of each."""

    NAMES = ("mm", "addmm", "addmm_", "bmm", "baddbmm_", "convolution", "convolution_backward")

    def __init__(self) -> None:
        super().__init__()
        self.found: list[list[tuple[torch.dtype, int]]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if func._schema.name.split("::")[1] in self.NAMES:
            tensors = [value for value in (*args, made) if isinstance(value, Tensor)]
            self.found.append([(value.dtype, value.numel()) for value in tensors])
        return made


@pytest.mark.parametrize("strategy", ["chosen", *STRATEGIES])
@pytest.mark.parametrize("recipe", ["loha", "loha tucker", "lokr", "locon"])
@pytest.mark.parametrize("layer", list(LAYERS))
def test_no_product_of_the_weights_size_is_in_float32(recipe: str, strategy: str, layer: str) -> None:
    operation = LAYERS[layer]
    factors = lively_factors(recipe, operation, dtype=torch.float32)
    weight, bias = a_weight(operation, dtype=torch.bfloat16)
    x = an_input(operation, dtype=torch.bfloat16).requires_grad_()
    made = (
        factors.strategy(operation, x)
        if strategy == "chosen"
        else strategy_of(strategy, factors, operation, precise=False)
    )
    forward, backward = Products(), Products()
    with forward:
        y = apply_strategy(made, lambda like: (weight, bias), x, factors.tensors)
    with backward:
        torch.autograd.grad(y, [x, *factors.parameters()], torch.ones_like(y))
    elements = math.prod(operation.shape)
    for product in (*forward.found, *backward.found):
        assert (torch.float32, elements) not in product
    if strategy in ("dense", "dense_forward"):
        assert sum((torch.bfloat16, x.numel()) in product for product in forward.found) == 1
