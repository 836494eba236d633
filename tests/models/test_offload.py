"""Weights in 8 bits, and weights that are fetched for each use."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lib_trainer.models.base import Layer
from lib_trainer.models.offload import Int8Weight, OffloadedWeights, PlainWeight, offloaded_weights, spread_out
from lib_trainer.models.placement import Placement

CPU = torch.device("cpu")


def stack(count: int = 16) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Linear(8, 8).requires_grad_(False) for _ in range(count)), nn.LayerNorm(8))


def layers_of(net: nn.Sequential) -> list[Layer]:
    linears = [part for part in net if isinstance(part, nn.Linear)]
    return [Layer(f"lora_unet_{place}", part, "linear", (8, 8)) for place, part in enumerate(linears)]


def error(stored: Tensor, weight: Tensor) -> float:
    return float((stored - weight).norm() / weight.norm())


@pytest.mark.parametrize("shape", [(320, 1280), (320, 64, 3, 3)])
def test_eight_bits_are_closer_to_the_weights_than_float8(shape: tuple[int, ...]) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 0.03
    in_int8 = error(Int8Weight.of(weight).dense(weight), weight)
    in_float8 = error(weight.to(torch.float8_e4m3fn).float(), weight)
    largest = weight.abs().amax(dim=tuple(range(1, weight.ndim)), keepdim=True)
    in_scaled_float8 = error((weight / largest * 448).to(torch.float8_e4m3fn).float() * largest / 448, weight)
    assert in_int8 < 0.011
    assert in_scaled_float8 > 2 * in_int8 and in_float8 > 2 * in_int8


def test_rows_of_zeros_stay_zeros_and_every_dtype_is_read() -> None:
    weight = torch.randn(4, 8)
    weight[1] = 0
    stored = Int8Weight.of(weight.half())
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        dense = stored.dense(torch.zeros(1, dtype=dtype))
        assert dense.dtype == dtype and not dense[1].any()
        assert error(dense.float(), weight) < 0.02


def test_no_row_divides_by_zero() -> None:
    """What a NaN becomes as a whole number depends on the device."""
    stored = Int8Weight.of(torch.zeros(2, 3))
    assert bool((stored.scale > 0).all()) and not stored.values.any()


def test_the_hosts_own_weights_may_leave_the_device() -> None:
    layers = layers_of(stack())
    weights = OffloadedWeights(layers, torch.device("cpu"), Placement(streamed=0.5))
    for layer in layers:
        weight, _ = weights.read(layer, torch.zeros(1))
        assert weight.data_ptr() != layer.module.weight.data_ptr() and torch.equal(weight, layer.module.weight)


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.8, 1.0])
def test_streamed_layers_are_spread_evenly(share: float) -> None:
    layers = layers_of(stack())
    chosen = [layer.name in spread_out(layers, share) for layer in layers]
    assert sum(chosen) == round(share * len(layers))
    for half in (chosen[: len(chosen) // 2], chosen[len(chosen) // 2 :]):
        assert abs(sum(half) - share * len(half)) <= 1


@pytest.mark.parametrize(
    "placement", [Placement(int8=True), Placement(streamed=1.0), Placement(streamed=0.5, int8=True)], ids=str
)
def test_the_modules_keep_their_own_weights_and_get_all_back(placement: Placement) -> None:
    net = stack()
    before = {name: (value, value.clone()) for name, value in net.named_parameters()}
    layers = layers_of(net)
    with offloaded_weights(net, layers, CPU, placement) as weights:
        for layer in layers:
            assert layer.module.weight is before[f"{layers.index(layer)}.weight"][0]
            assert layer.module.bias is not before[f"{layers.index(layer)}.bias"][0]
            weight, bias = weights.read(layer, torch.zeros(1, dtype=torch.bfloat16))
            assert weight.dtype == bias.dtype == torch.bfloat16
            assert error(weight.float(), layer.module.weight) < 0.02
            # What is read is nobody else's: changing it changes no weight.
            weight.zero_()
        assert net[-1].weight is not before["16.weight"][0]
    for name, value in net.named_parameters():
        own, copy = before[name]
        assert value is own and torch.equal(value, copy)
    assert not any(weights.holds(layer) for layer in layers)


def test_inference_tensors_can_be_stored_and_come_back_as_they_were() -> None:
    with torch.inference_mode():
        net = stack(2)
    layers = layers_of(net)
    with offloaded_weights(net, layers, CPU, Placement(int8=True)) as weights:
        x = torch.ones(1, 8, requires_grad=True)
        nn.functional.linear(net[-1](x), *weights.read(layers[0], x)).square().sum().backward()
        assert x.grad is not None
    assert all(parameter.is_inference() for parameter in net.parameters())


def test_the_next_weight_is_fetched_ahead_once_the_order_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = layers_of(stack(4))
    weights = OffloadedWeights(layers, CPU, Placement(streamed=1.0))
    fetcher = weights._streamed
    started: list[str] = []
    start = fetcher._start
    monkeypatch.setattr(fetcher, "_start", lambda name: (started.append(name), start(name))[1])
    like = torch.zeros(1)
    order = [*layers, *reversed(layers)]

    def step() -> list[tuple[str, bool]]:
        """Each layer that is read, and whether it was there before it was asked for."""
        seen = []
        for layer in order:
            coming = fetcher._coming
            weight, _ = weights.read(layer, like)
            seen.append((layer.name, coming is not None and coming[0] == layer.name))
            assert torch.equal(weight, layer.module.weight)
        return seen

    assert not any(ahead for _, ahead in step()[:4])
    step()
    started.clear()
    assert all(ahead for _, ahead in step())
    # The last one of forward is the first of backward, and the first of a step the last of the one before.
    assert len(started) == len(order) - 2


def test_a_wrong_guess_still_brings_the_right_weight() -> None:
    layers = layers_of(stack(6))
    weights = OffloadedWeights(layers, CPU, Placement(streamed=1.0, int8=True))
    generator = torch.Generator().manual_seed(0)
    wanted = {layer.name: Int8Weight.of(layer.module.weight).dense(torch.zeros(1)) for layer in layers}
    for place in torch.randint(6, (100,), generator=generator).tolist():
        weight, _ = weights.read(layers[place], torch.zeros(1))
        assert torch.equal(weight, wanted[layers[place].name])


def test_at_most_two_streamed_weights_are_on_the_device() -> None:
    from lib_trainer.memory.storage_peak import StoragePeak

    layers = layers_of(stack(8))
    weights = OffloadedWeights(layers, CPU, Placement(streamed=1.0))
    one = layers[0].module.weight.nbytes
    peak = StoragePeak()
    peak.ignore([tensor for layer in layers for tensor in layer.module.parameters()])
    with peak:
        for _ in range(3):
            for layer in layers:
                weights.read(layer, torch.zeros(1))
    assert peak.peak <= 2 * max(one, 512) + 512


def test_plain_weights_are_read_as_they_are() -> None:
    weight: Any = torch.randn(3, 3).half()
    assert torch.equal(PlainWeight(weight).dense(torch.zeros(1)), weight.float())
