"""A model of a family's full size whose tensors have shapes but no storage, to measure what training on it takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from lib_trainer.host.standalone.model import StandaloneModel
from lib_trainer.models.base import CheckpointInfo
from lib_trainer.models.families import UNetShape

_CPU = torch.device("cpu")
_TIME_EMBEDDING = 256


class FakeModel(StandaloneModel):
    """An open model whose UNet is made of fake tensors. It has no autoencoder and no text encoders.

    Attributes:
        fake_mode: while entered, new tensors are fake too. The model must be used inside it.
    """

    def __init__(self, unet: UNet2DConditionModel, fake_mode: AbstractContextManager[Any], undo: ExitStack) -> None:
        parts = dict.fromkeys(("vae", "text_encoder", "text_encoder_2"), _Absent())
        pipeline: Any = SimpleNamespace(unet=unet, scheduler=DDIMScheduler(), **parts)
        super().__init__(pipeline, CheckpointInfo("empty", ""), _CPU, undo)
        self.fake_mode = fake_mode

    def weights_off_device(self) -> list[Tensor]:
        """Weights that would not lie on a GPU now: the host's own ones, and what is streamed."""
        if self._offloaded is None:
            return []
        return [layer.module.weight for layer in self.adaptable_layers()] + self._offloaded.streamed_tensors()


@contextmanager
def fake_model(shape: UNetShape, dtype: torch.dtype) -> Iterator[FakeModel]:
    """A UNet of that shape with weights of `dtype`."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with ExitStack() as undo:
        with mode:
            unet = build_unet(shape, dtype)
        yield FakeModel(unet, mode, undo)


def build_unet(shape: UNetShape, dtype: torch.dtype) -> UNet2DConditionModel:
    """diffusers' UNet of that shape, with weights of `dtype`."""
    kinds = ["CrossAttn" if depth else "" for depth in shape.depths]
    depths = [max(depth, 1) for depth in shape.depths]
    extra = {}
    if shape.pooled_dim:
        extra = {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": _TIME_EMBEDDING,
            "projection_class_embeddings_input_dim": shape.pooled_dim,
        }
    # Created in the dtype at once: converting later would hold a full-size float32 model for a moment.
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        return UNet2DConditionModel(
            in_channels=shape.latent_channels,
            out_channels=shape.latent_channels,
            block_out_channels=shape.channels,
            layers_per_block=shape.res_blocks,
            down_block_types=[f"{kind}DownBlock2D" for kind in kinds],
            up_block_types=[f"{kind}UpBlock2D" for kind in reversed(kinds)],
            transformer_layers_per_block=[*depths[:-1], max(depths[-1], shape.middle_depth)],
            cross_attention_dim=shape.context_dim,
            attention_head_dim=shape.heads,
            use_linear_projection=shape.linear_projection,
            **extra,
        ).eval()
    finally:
        torch.set_default_dtype(before)


class _Absent(nn.Module):
    """In place of the parts that this model lacks."""

    device = _CPU


def pooled_width(shape: UNetShape) -> int:
    """Width of SDXL's pooled text: the embedding without its six sizes; 0 for other families."""
    return shape.pooled_dim - 6 * _TIME_EMBEDDING if shape.pooled_dim else 0
