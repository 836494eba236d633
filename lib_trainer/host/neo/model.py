"""The checkpoint that Forge Neo holds, as training sees it."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from lib_trainer.errors import UserError
from lib_trainer.host.forge.model import ForgeModel
from lib_trainer.host.forge.transformer import Captions, ForgeTransformer
from lib_trainer.models.base import Layer
from lib_trainer.models.families import LUMINA2, Family
from lib_trainer.models.placement import Placement
from lib_trainer.utils.patch import attributes


class NeoModel(ForgeModel):
    """An open engine of Forge Neo with a UNet; implements `models.base.HostModel`.

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


class PositiveCaptions(Captions):
    """Lumina's engine puts a sentence in front of a prompt, another of a negative one; it has no reference pictures."""

    is_negative_prompt = False


class NeoTransformer(NeoModel, ForgeTransformer):
    """An open engine of Forge Neo with a diffusion transformer; implements `models.base.HostModel`."""

    def __init__(self, engine: Any, family: Family, undo: ExitStack) -> None:
        from modules import shared

        super().__init__(engine, family, undo)
        # Anima is made of a video model: one picture is a video of one frame, (B, C, 1, H, W).
        self._has_frames = bool(getattr(engine, "is_wan", False))
        if family is LUMINA2:
            self.captions = PositiveCaptions
            self.checkpoint = replace(self.checkpoint, before_captions=shared.opts.neta_template_positive)

    def encode_images(self, pixels: Tensor) -> Tensor:
        encode = super().encode_images
        if not self._has_frames:
            return encode(pixels)
        # Neo takes a batch for the frames of one video.
        return torch.cat([encode(picture[None]).squeeze(2) for picture in pixels])

    def _predict(self, x_t: Tensor, t: Tensor, context: Tensor, pooled: Tensor | None) -> Tensor:
        if not self._has_frames:
            return super()._predict(x_t, t, context, pooled)
        return super()._predict(x_t.unsqueeze(2), t, context, pooled).squeeze(2)

    def _change(self, placement: Placement, text_encoder: bool) -> None:
        from backend.args import dynamic_args

        super()._change(placement, text_encoder)
        enter = self._changes.enter_context
        # Neo's own, of the package comfy_kitchen, have no gradient; Anima calls it by the package's name.
        kitchen = SimpleNamespace(apply_rope=rotate, apply_rope_split_half=rotate_halves)
        enter(attributes(self._code(), apply_rope=rotate, ck=kitchen))
        # Pictures that a person edits would be appended to ours.
        enter(attributes([dynamic_args], ref_latents=[]))


def rotate(q: Tensor, k: Tensor, rotations: Tensor) -> tuple[Tensor, Tensor]:
    """Rotary embedding of queries and keys, whose neighbours 2i, 2i+1 are a pair.

    Args:
        q, k: (…, D).
        rotations: (…, D/2, 2, 2) a matrix a pair.

    Source: Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding" (2021).
    """
    return _rotated(q, rotations), _rotated(k, rotations)


def rotate_halves(q: Tensor, k: Tensor, rotations: Tensor) -> tuple[Tensor, Tensor]:
    """As `rotate`, with pairs i, i + D/2."""
    first, second = (_interleaved(tensor) for tensor in (q, k))
    return tuple(_deinterleaved(_rotated(tensor, rotations)) for tensor in (first, second))


def _rotated(x: Tensor, rotations: Tensor) -> Tensor:
    pairs = x.to(rotations.dtype).unflatten(-1, (-1, 1, 2))
    return (rotations * pairs).sum(-1).flatten(-2).to(x.dtype)


def _interleaved(x: Tensor) -> Tensor:
    return x.unflatten(-1, (2, -1)).transpose(-1, -2).flatten(-2)


def _deinterleaved(x: Tensor) -> Tensor:
    return x.unflatten(-1, (-1, 2)).transpose(-1, -2).flatten(-2)


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
