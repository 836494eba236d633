"""The adapted layers of SD 1.5 and SDXL with the inputs they see, counted by running the UNets without contents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import nn

from benchmarks.simulation.unet import build_unet
from lib_trainer.adapter.attach import layer_op_of
from lib_trainer.adapter.kernels.autograd import LayerOp
from lib_trainer.host.standalone.model import unet_layers
from lib_trainer.models.families import SDXL, Family

_TOKENS = 77


@dataclass(frozen=True)
class Shape:
    """A layer and its input.

    Attributes:
        operation: what it computes.
        x_shape: (B, tokens, in), (B, in) or (B, in, H, W).
    """

    operation: LayerOp
    x_shape: tuple[int, ...]

    @property
    def multiply_adds(self) -> int:
        out, inner = self.operation.shape[:2]
        kernel = self.operation.shape[2:]
        positions = 1
        for side in (*self.x_shape, *kernel):
            positions *= side
        strides = self.operation.stride
        return out * positions // (strides[0] * strides[1]) * inner // self.x_shape[1 if kernel else -1]

    def __str__(self) -> str:
        """`1280×5120 · 1024`, `640×320 3×3/2 · 64×64`: sides, kernel, stride, positions."""
        out, inner, *kernel = self.operation.shape
        shown = f"{out}×{inner}"
        if kernel:
            shown += f" {kernel[0]}×{kernel[1]}" + (
                f"/{self.operation.stride[0]}" if self.operation.stride[0] > 1 else ""
            )
        positions = self.x_shape[2:] if kernel else self.x_shape[1:-1] or (1,)
        return f"{shown} · {'×'.join(map(str, positions))}"


def frozen_unet(family: Family, device: str, dtype: torch.dtype = torch.float32) -> UNet2DConditionModel:
    """The family's UNet at full size; on `meta` without contents."""
    with torch.device(device):
        return build_unet(family.shape, dtype).requires_grad_(False)


def unet_inputs(
    family: Family, size_px: int, batch: int, device: str, dtype: torch.dtype = torch.float32
) -> dict[str, Any]:
    """Random arguments of the UNet for square pictures."""
    made = torch.Generator(device).manual_seed(0) if device != "meta" else None

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=made, device=device).to(dtype)

    inputs: dict[str, Any] = {
        "sample": random(batch, 4, size_px // 8, size_px // 8),
        "timestep": torch.full((batch,), 500, device=device),
        "encoder_hidden_states": random(batch, _TOKENS, family.context_dim),
    }
    if family is SDXL:
        inputs["added_cond_kwargs"] = {"text_embeds": random(batch, 1280), "time_ids": random(batch, 6)}
    return inputs


def shapes_of(family: Family, size_px: int, batch: int = 1) -> Counter[Shape]:
    """How often each adapted layer occurs in one forward of the UNet over square pictures."""
    unet, seen = frozen_unet(family, "meta"), Counter()

    def counting(operation: LayerOp) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_module: nn.Module, inputs: Any, _output: Any) -> None:
            seen[Shape(operation, tuple(inputs[0].shape))] += 1

        return hook

    for layer in unet_layers(unet, family):
        layer.module.register_forward_hook(counting(layer_op_of(layer)))
    unet(**unet_inputs(family, size_px, batch, "meta"))
    return seen
