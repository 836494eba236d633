from contextlib import nullcontext

import torch
from torch import nn

from ldm.modules.encoders import modules as ldm_encoders

from ..diffusionmodules.openaimodel import Timestep


class FrozenCLIPEmbedder(ldm_encoders.FrozenCLIPEmbedder):
    pass


class FrozenOpenCLIPEmbedder2(ldm_encoders.FrozenOpenCLIPEmbedder2):
    pass


class ConcatTimestepEmbedderND(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.timestep = Timestep(width)

    def forward(self, numbers):
        return self.timestep(numbers.flatten()).unflatten(0, numbers.shape).flatten(1)


class GeneralConditioner(nn.Module):
    """Asks each embedder for its part. One that is not trainable is asked under no_grad, whatever the caller wants."""

    def __init__(self, embedders):
        super().__init__()
        keys = ["txt", "txt", "original_size_as_tuple", "crop_coords_top_left", "target_size_as_tuple"]
        for embedder, key in zip(embedders, keys, strict=True):
            embedder.input_key, embedder.is_trainable = key, False
        self.embedders = nn.ModuleList(embedders).eval().requires_grad_(False)

    def forward(self, asked, force_zero_embeddings=()):
        parts = [part for embedder in self.embedders for part in self._answer(embedder, asked, force_zero_embeddings)]
        # Hidden states are (B, 77, D), everything else is (B, D).
        return {
            name: torch.cat([part for part in parts if part.ndim == ndim], dim=-1)
            for name, ndim in (("crossattn", 3), ("vector", 2))
        }

    def _answer(self, embedder, asked, zeros):
        with nullcontext() if embedder.is_trainable else torch.no_grad():
            found = embedder(asked[embedder.input_key])
        factor = 0 if embedder.input_key in zeros else 1
        return [part * factor for part in (found if isinstance(found, tuple) else (found,))]
