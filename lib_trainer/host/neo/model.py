"""The checkpoint that Forge Neo holds, as training sees it."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from lib_trainer.errors import UserError
from lib_trainer.host.forge.model import ForgeModel
from lib_trainer.models.base import Layer
from lib_trainer.models.families import Family


class NeoModel(ForgeModel):
    """An open engine of Forge Neo; implements `models.base.HostModel`.

    Raises:
        UserError: for weights in a number format that cannot be read.
    """

    def __init__(self, engine: Any, family: Family, undo: ExitStack) -> None:
        from backend import memory_management

        super().__init__(engine, family, undo)
        with torch.inference_mode():
            # Neo prepares GGUF weights for reading only when it first moves them.
            for patcher in (self._objects.unet, self._objects.clip.patcher):
                memory_management.bake_gguf_model(patcher.model)
        for layer in self.adaptable_layers():
            weight = layer.module.weight
            if not _is_readable(weight):
                kind = f"{type(weight).__name__} of {str(weight.data.dtype).removeprefix('torch.')}"
                raise UserError(
                    f"{self.checkpoint.name} holds its weights as {kind}, which cannot be trained on.",
                    "Choose a checkpoint in 16 bits, fp8, int8, nvfp4, nf4 or GGUF.",
                )

    def _read_own_weight(self, layer: Layer, like: Tensor) -> tuple[Tensor, Tensor | None]:
        # Neo's `get_weight_and_bias` takes the layer only, and converts to no device or dtype.
        module = layer.module
        bias = None if module.bias is None else read_dense(module.bias, like)
        return read_dense(module.weight, like), bias


def read_dense(tensor: Tensor, like: Tensor) -> Tensor:
    """A weight in any of Neo's formats as a dense tensor in the dtype and on the device of `like`."""
    from backend.operations_gguf import dequantize_tensor
    from backend.quant_ops import QuantizedTensor

    with torch.no_grad():
        moved = tensor.to(like.device)
        if isinstance(tensor, QuantizedTensor):
            # fp8 and int8 with scales, nvfp4, mxfp8.
            moved = moved.dequantize()
        elif getattr(tensor, "bnb_quantized", False):
            # Neo's own function needs a GPU.
            from bitsandbytes.functional import dequantize_4bit

            moved = dequantize_4bit(moved, moved.quant_state)
        elif hasattr(tensor, "gguf_cls"):
            moved = dequantize_tensor(moved)
        return moved.data.to(like)


def _is_readable(tensor: Tensor) -> bool:
    """Whether `read_dense` knows the format of a weight."""
    from backend.quant_ops import QuantizedTensor

    known = isinstance(tensor, QuantizedTensor) or getattr(tensor, "gguf_cls", None) is not None
    return known or hasattr(tensor, "bnb_quantized") or tensor.data.is_floating_point()
