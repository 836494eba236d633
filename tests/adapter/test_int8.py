"""8-bit products: as exact as their rounding, chosen as asked for, and left out where a layer or device has none."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lib_trainer.adapter.attach import attached, new_adapter
from lib_trainer.adapter.kernels import int8, measure
from lib_trainer.adapter.kernels.autograd import LayerOp, apply_strategy
from lib_trainer.adapter.kernels.choices import KernelChoices
from lib_trainer.adapter.kernels.int8 import Int8Base, fits_int8, int8_grad_input, int8_product, without_int8
from lib_trainer.models.offload import Int8Weight, OffloadedWeights
from lib_trainer.models.placement import Placement
from tests.adapter.layers import RECIPES, as_layer, lively_factors

pytestmark = pytest.mark.skipif(not int8.has_int8("cpu"), reason="PyTorch has no 8-bit product for this CPU")
OPERATION = LayerOp((48, 64))
CPU = torch.device("cpu")


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Held:
    """A weight in 8 bits, and what it stands for."""

    def __init__(self, operation: LayerOp = OPERATION) -> None:
        self.weight, self.bias = Int8Weight.of(0.03 * drawn(*operation.shape)), drawn(operation.shape[0], seed=1)
        self.own = False

    def __call__(self, like: Tensor) -> tuple[Tensor, Tensor]:
        return self.weight.dense(like), self.bias.to(like)

    def int8(self, like: Tensor) -> tuple[Int8Weight | None, Tensor]:
        return (None if self.own else self.weight), self.bias.to(like)


def error(found: Tensor, wanted: Tensor) -> float:
    return float((found.double() - wanted.double()).norm() / wanted.double().norm())


def test_products_of_what_8_bits_can_say_are_exact() -> None:
    held = Held()
    x = torch.randint(-126, 127, (2, 20, 64), generator=torch.Generator().manual_seed(2)).float()
    x[..., 0] = 127
    dense = held.weight.dense(x)
    torch.testing.assert_close(int8_product(x, held.weight), x @ dense.T, rtol=1e-5, atol=1e-4)
    grad = torch.randint(-126, 127, (2, 20, 48), generator=torch.Generator().manual_seed(3)).float()
    grad[..., 0] = 127
    flat = Int8Weight(held.weight.values, torch.full_like(held.weight.scale, 0.25))
    torch.testing.assert_close(int8_grad_input(grad, flat), grad @ flat.dense(grad), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_each_token_and_each_row_is_rounded_by_its_own_scale(dtype: torch.dtype) -> None:
    held = Held()
    # Rows and tokens of sizes a thousand times apart: one scale for all would lose the small ones.
    held.weight = Int8Weight.of(0.03 * drawn(48, 64) * torch.logspace(-2, 1, 48)[:, None])
    x = (drawn(40, 64, seed=2) * torch.logspace(-2, 1, 40)[:, None]).to(dtype)
    grad = (drawn(40, 48, seed=3) * torch.logspace(-2, 1, 40)[:, None]).to(dtype)
    dense = held.weight.dense(x.double())
    found, wanted = int8_product(x, held.weight), x.double() @ dense.T
    assert found.dtype == dtype
    # 1/127 of the largest of 64 values, divided by the root of twelve.
    assert all(error(found[i], wanted[i]) < 0.02 for i in range(40))
    assert all(error(found[:, j] / x.norm(dim=1), wanted[:, j] / x.double().norm(dim=1)) < 0.02 for j in range(48))
    found, wanted = int8_grad_input(grad, held.weight), grad.double() @ dense
    assert found.dtype == dtype and all(error(found[i], wanted[i]) < 0.02 for i in range(40))


@pytest.mark.parametrize("strategy", ["dense", "dense_forward", "low_rank"])
@pytest.mark.parametrize("recipe", ["loha", "lokr", "locon"])
@pytest.mark.parametrize("asks", [True, False])
def test_a_layer_computes_as_without_but_for_the_rounding(recipe: str, strategy: str, asks: bool) -> None:
    held, factors = Held(), lively_factors(recipe, OPERATION, dtype=torch.float32)
    factors.strength = 0.1
    x, grad = drawn(2, 20, 64, seed=4).requires_grad_(asks), drawn(2, 20, 48, seed=5)
    inputs, found = [*([x] if asks else []), *factors.parameters()], []
    for setting in ("off", "on"):
        factors.compute_by(KernelChoices(strategy, setting))
        y = factors.apply_to(OPERATION, held, x)
        found.append([y.detach(), *torch.autograd.grad(y, inputs, grad)])
    assert isinstance(factors.strategy(OPERATION, x, int8=True), Int8Base)
    (y_off, *grads_off), (y_on, *grads_on) = found
    assert 0 < error(y_on, y_off) < 0.02
    if asks:
        assert 0 < error(grads_on.pop(0), grads_off.pop(0)) < 0.02
    # ΔW·x and the factors' gradients know nothing of W.
    torch.testing.assert_close(grads_on, grads_off, rtol=1e-5, atol=1e-5)


def test_off_auto_and_on(monkeypatch: pytest.MonkeyPatch) -> None:
    x, held = drawn(40, 64), Held()
    seconds = {"dense": 3.0, "dense_forward": 2.0, "low_rank": 2.5}

    def names(asked: str, gain: float, **how: str | float) -> str:
        factors = lively_factors("lokr", OPERATION, dtype=torch.float32)
        factors.compute_by(KernelChoices(int8=asked, **how))

        def least(strategy: object, *_: object) -> float:
            inner = strategy.delta if isinstance(strategy, Int8Base) else strategy
            kind = {"KroneckerDense": "dense", "DenseForward": "dense_forward", "LowRank": "low_rank"}[
                type(inner).__name__
            ]
            return seconds[kind] * (gain if isinstance(strategy, Int8Base) else 1)

        monkeypatch.setattr(measure, "_least_seconds", least)
        made = factors.strategy(OPERATION, x, int8=held.int8 is not None)
        return type(made).__name__ + (f" {type(made.delta).__name__}" if isinstance(made, Int8Base) else "")

    assert names("off", 0.1) == "DenseForward"
    assert names("auto", 0.5) == "Int8Base DenseForward"
    assert names("auto", 1.5) == "DenseForward"
    assert names("on", 1.5) == "Int8Base DenseForward"
    assert names("auto", 0.1, setting="counted").startswith("Int8Base")
    # Nothing is left to measure with: what a count cannot tell is not taken.
    assert names("auto", 0.1, most_seconds=0) == "KroneckerDense"


def test_layers_and_devices_without_such_a_product_compute_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    assert fits_int8(OPERATION, drawn(17, 64))
    assert not fits_int8(OPERATION, drawn(16, 64)), "CUDA's product takes more rows"
    assert not fits_int8(LayerOp((44, 64)), drawn(17, 64)) and not fits_int8(LayerOp((48, 60)), drawn(17, 60))
    assert not fits_int8(LayerOp((48, 64, 1, 1)), drawn(2, 64, 6, 6))
    factors = lively_factors("lokr", OPERATION, dtype=torch.float32)
    factors.compute_by(KernelChoices("dense", "on"))
    assert not isinstance(factors.strategy(OPERATION, drawn(16, 64), int8=True), Int8Base)
    assert not isinstance(factors.strategy(OPERATION, drawn(17, 64), int8=False), Int8Base)
    int8.has_int8.cache_clear()
    with monkeypatch.context() as older:
        older.setattr(torch, "_int_mm", lambda a, b: (_ for _ in ()).throw(NotImplementedError()))
        assert not fits_int8(OPERATION, drawn(17, 64))
        assert torch.__version__ in without_int8("on", CPU, held=True)
    int8.has_int8.cache_clear()
    assert without_int8("on", CPU, held=True) == without_int8("off", CPU, held=False) == ""
    assert "not held in 8 bits" in without_int8("auto", CPU, held=False)


def test_while_the_host_draws_with_its_own_weight_that_is_used() -> None:
    held, factors = Held(), lively_factors("lokr", OPERATION, dtype=torch.float32)
    x = drawn(40, 64)
    factors.compute_by(KernelChoices("low_rank", "on"))
    first = factors.apply_to(OPERATION, held, x)
    held.own = True
    wanted = apply_strategy(factors.strategy_named("low_rank", OPERATION, x), held, x, factors.tensors)
    assert torch.equal(factors.apply_to(OPERATION, held, x), wanted) and not torch.equal(first, wanted)


@pytest.mark.parametrize("streamed", [0.0, 1.0])
def test_an_attached_adapter_multiplies_with_what_is_held(monkeypatch, streamed: float) -> None:
    module = nn.Linear(64, 48)
    layer = as_layer("lora_unet_x", module, OPERATION)
    weights = OffloadedWeights([layer], CPU, Placement(frozenset(), True, streamed))
    adapter, calls = new_adapter([layer], RECIPES["lokr"], seed=0), []
    adapter.choices = KernelChoices(int8="on")
    monkeypatch.setattr(int8, "int8_product", lambda x, held: calls.append(held) or int8_product(x, held))
    x = drawn(3, 20, 64)
    with attached(adapter, [layer], weights.read, read_int8=weights.read_int8):
        y = module(x)
    assert len(calls) == 1 and torch.equal(calls[0].values, Int8Weight.of(module.weight.detach()).values)
    assert 0 < error(y, module(x)) < 0.03
    plain = OffloadedWeights([layer], CPU, Placement(frozenset(), False, 0.5))
    assert plain.read_int8(layer, x)[0] is None
