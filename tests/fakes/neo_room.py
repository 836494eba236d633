"""A running Forge Neo as the contract tests see it, and how the fake one is started and removed again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lib_trainer.host.neo.host import NeoHost
from tests.fakes.forge_room import CHECKPOINTS, FORGE_ROOT, ForgeRoom, started

# Families that Neo alone loads.
TRANSFORMERS = ("zimage", "klein4b", "chroma", "lumina2", "anima")


@dataclass(frozen=True)
class NeoRoom(ForgeRoom):
    """A Forge Neo, real or fake, with one checkpoint selected."""

    host: NeoHost

    def prompt_notes(self) -> dict[str, Any]:
        from backend.args import dynamic_args

        return dict(dynamic_args.last_extra_generation_params)

    def posterior_mean(self, pixels: Tensor) -> Tensor:
        vae = self.engine.forge_objects.vae
        model = vae.first_stage_model
        with torch.inference_mode():
            moments = model.encoder(pixels.to(vae.device, vae.vae_dtype))
            moments = moments if model.quant_conv is None else model.quant_conv(moments)
        mean = moments.chunk(2, dim=1)[0]
        return mean.float().cpu().clone() * self.host.drawing_family().latent_scale


@contextmanager
def fake_neo(folder: Path, checkpoint: str) -> Iterator[NeoRoom]:
    """The fake Neo, started in `folder`: where it is as Forge, the fake Forge's modules serve."""
    checkpoints = {**CHECKPOINTS, "sd1-int8.safetensors": {"family": "sd1", "quantized": True}}
    checkpoints |= {f"{family}.safetensors": {"family": family} for family in TRANSFORMERS}
    with started(folder, checkpoints, [Path(__file__).parent / "neo", FORGE_ROOT]) as thread:
        room = NeoRoom(NeoHost(), checkpoint, thread)
        room.select()
        yield room
