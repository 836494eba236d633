"""A UNet of a family's full size, to measure what training on it takes: with contents, or on the meta device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn

from benchmarks.simulation.meta_device import META, MetaDevice
from lib_trainer.host.standalone.model import StandaloneModel
from lib_trainer.models.base import CheckpointInfo
from lib_trainer.models.families import UNetShape

_TIME_EMBEDDING = 256


class UNetAlone(StandaloneModel):
    """An open model that has no autoencoder and no text encoders.

    Args:
        device: where it computes. On the meta device nothing has contents.

    Attributes:
        without_contents: while entered, new tensors lie where a meta model's do. Such a model must be used inside it.
    """

    def __init__(self, unet: UNet2DConditionModel, device: torch.device, undo: ExitStack) -> None:
        parts = dict.fromkeys(("vae", "text_encoder", "text_encoder_2"), _Absent())
        pipeline: Any = SimpleNamespace(unet=unet, scheduler=DDIMScheduler(), **parts)
        super().__init__(pipeline, CheckpointInfo("empty", ""), device, undo)
        self.without_contents = MetaDevice() if device == META else nullcontext()

    def move(self, *on_device: nn.Module) -> None:
        # What lies nowhere cannot be moved; `weights_off_device` says what would be.
        if self.device != META:
            super().move(*on_device)

    def weights_off_device(self) -> list[Tensor]:
        """Weights that would not lie on a GPU now: the host's own ones, and what is streamed."""
        if self._offloaded is None:
            return []
        return [layer.module.weight for layer in self.adaptable_layers()] + self._offloaded.streamed_tensors()


@contextmanager
def simulated_unet(shape: UNetShape, dtype: torch.dtype) -> Iterator[UNetAlone]:
    """A UNet of that shape with weights of `dtype`, without contents."""
    with ExitStack() as undo:
        with META:
            unet = build_unet(shape, dtype)
        yield UNetAlone(unet, META, undo)


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

    device = torch.device("cpu")


def pooled_width(shape: UNetShape) -> int:
    """Width of SDXL's pooled text: the embedding without its six sizes; 0 for other families."""
    return shape.pooled_dim - 6 * _TIME_EMBEDDING if shape.pooled_dim else 0
