"""torch.compile around blocks with adapted layers. The gradients of whole UNets are in the hosts' contract."""

from __future__ import annotations

import shutil
from typing import Any

import pytest
import torch
from torch import nn

from lib_trainer.adapter.attach import attached, new_adapter
from lib_trainer.compiling import compiled, compiler_problem
from lib_trainer.host import trainable
from lib_trainer.host.base import Placement
from tests.adapter.layers import OPERATIONS, RECIPES, as_layer, as_module, lively_factors, read_plain

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
CPU = torch.device("cpu")


class Block(nn.Module):
    """Adds to its input in place, as Forge's transformer blocks do."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(OPERATIONS["linear"].shape[1]), as_module(OPERATIONS["linear"])
        self.passes = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.passes += 1
        x = x * 1
        y = self.linear(self.norm(x))
        x += y.mean(-1, keepdim=True)
        return nn.functional.gelu(x) * self.linear(self.norm(x)).sum(-1, keepdim=True)


def gradients(block: Block, placement: Placement | None) -> list[torch.Tensor]:
    layer = as_layer("lora_unet_0", block.linear, OPERATIONS["linear"])
    adapter = new_adapter([layer], RECIPES["loha"], seed=0)
    adapter.layers["lora_unet_0"] = lively_factors("loha", OPERATIONS["linear"], dtype=torch.float32)
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(2, 5, OPERATIONS["linear"].shape[1], generator=generator, requires_grad=True)
    is_compiled = placement is not None
    with trainable.frozen(block), attached(adapter, [layer], read_plain, compiled=is_compiled):
        if placement is None:
            block(x).sum().backward()
        else:
            with (
                trainable.cloned_inputs([block.norm], compiled=True),
                trainable.placed([block], placement),
            ):
                block(x).sum().backward()
    return [x.grad, *(parameter.grad for parameter in adapter.parameters())]


@needs_compiler
def test_a_compiled_block_has_the_same_gradients_though_it_adds_in_place() -> None:
    import torch._dynamo
    from torch._dynamo.utils import counters

    block = Block()
    limits = torch._dynamo.config.cache_size_limit, torch._dynamo.config.suppress_errors
    counters.clear()
    with trainable.cloned_inputs([block.norm]):
        wanted = gradients(block, None)
    assert not counters["stats"]
    for found, right in zip(gradients(block, Placement(compiled=True)), wanted, strict=True):
        torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-5)
    assert counters["stats"]["unique_graphs"] > 0
    assert (torch._dynamo.config.cache_size_limit, torch._dynamo.config.suppress_errors) == limits
    assert "forward" not in vars(block)


@needs_compiler
def test_what_is_recomputed_is_not_compiled() -> None:
    from torch._dynamo.utils import counters

    counters.clear()
    gradients(Block(), Placement(recomputed=None, compiled=True))
    assert not counters["stats"]


@needs_compiler
def test_a_picture_is_drawn_without_the_compiler() -> None:
    from torch._dynamo.utils import counters

    counters.clear()
    block = Block()
    with compiled([block]), torch.no_grad():
        block(torch.ones(1, 5, OPERATIONS["linear"].shape[1]))
    assert not counters["stats"] and block.passes == 1


@needs_compiler
def test_a_compiler_that_works_has_no_problem() -> None:
    assert compiler_problem(CPU) == ""


@pytest.mark.parametrize("moment", ["made", "called"])
def test_a_compiler_that_is_missing_is_said_in_a_line(monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    def missing(*_: Any) -> Any:
        raise RuntimeError("Cannot find a working compiler\nTraceback: …")

    monkeypatch.setattr(torch, "compile", missing if moment == "made" else lambda _function: missing)
    assert compiler_problem(CPU) == "RuntimeError: Cannot find a working compiler"
