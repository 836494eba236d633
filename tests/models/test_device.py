"""Which optimizers a device has, tried and not guessed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from lib_trainer.models import device

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def untried() -> Iterator[None]:
    device._failure_of_a_step.cache_clear()
    yield
    device._failure_of_a_step.cache_clear()


class Broken:
    steps = 0

    def __init__(self, parameters: object) -> None:
        assert sum(parameter.numel() for parameter in parameters) >= 4096, "it would be kept in 32 bits"

    def step(self) -> None:
        Broken.steps += 1
        raise NotImplementedError("no kernel for optimizer_update_8bit on cpu")


def test_a_release_without_kernels_for_this_device_is_found_by_one_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", SimpleNamespace(AdamW8bit=Broken))
    monkeypatch.setitem(sys.modules, "bitsandbytes", SimpleNamespace(__version__="0.49.2"))
    for _ in range(2):
        name, why = device.available_optimizer("AdamW8bit", CPU)
        assert name == "AdamW" and "on a CPU" in why and "NotImplementedError" in why
    assert Broken.steps == 1
    assert device.available_optimizer("Prodigy", CPU) == ("Prodigy", "")


def test_a_release_that_steps_is_taken() -> None:
    pytest.importorskip("bitsandbytes", minversion="0.50")
    with torch.inference_mode():
        assert device.available_optimizer("AdamW8bit", CPU) == ("AdamW8bit", "")


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[torch.dtype, float]]:
    """What the product of a layer takes on this CPU in each dtype; nothing was measured yet."""
    taken = {torch.float32: 1.0, torch.bfloat16: 1.0}
    monkeypatch.setattr(device, "_seconds_of_a_product", taken.__getitem__)
    device.cpu_is_faster_in_bf16.cache_clear()
    yield taken
    taken[torch.bfloat16] = 1.0
    device.cpu_is_faster_in_bf16.cache_clear()
    device.cpu_is_faster_in_bf16()


def test_a_cpu_computes_in_bfloat16_where_that_is_asked_for_and_faster(seconds: dict[torch.dtype, float]) -> None:
    seconds[torch.bfloat16] = 0.5
    assert device.compute_dtype("bf16", CPU) == torch.bfloat16
    assert {device.compute_dtype(name, CPU) for name in ("fp16", "fp32")} == {torch.float32}
    # Measured once: what the machine does meanwhile changes nothing.
    seconds[torch.bfloat16] = 5.0
    assert device.compute_dtype("bf16", CPU) == torch.bfloat16


@pytest.mark.parametrize("slower", [0.9, 150.0])
def test_a_cpu_that_gains_little_or_loses_computes_in_float32(seconds: dict[torch.dtype, float], slower: float) -> None:
    seconds[torch.bfloat16] = slower
    assert device.compute_dtype("bf16", CPU) == torch.float32


def test_a_product_takes_a_time() -> None:
    assert all(0 < device._seconds_of_a_product(dtype) < 60 for dtype in (torch.float32, torch.bfloat16))


def test_products_are_timed_on_one_thread_which_waits_for_no_other() -> None:
    threads, seen = torch.get_num_threads(), []
    torch.set_num_threads(2)
    try:
        with pytest.MonkeyPatch.context() as patch:
            linear = nn.functional.linear
            patch.setattr(nn.functional, "linear", lambda *a: (seen.append(torch.get_num_threads()), linear(*a))[1])
            assert device._seconds_of_a_product(torch.float32) > 0
        assert set(seen) == {1} and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
