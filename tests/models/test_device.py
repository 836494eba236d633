"""Which optimizers a device has, tried and not guessed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch

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
