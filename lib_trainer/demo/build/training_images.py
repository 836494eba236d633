"""The pictures that the UNet is trained on, with their latents: drawn and encoded once."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from lib_trainer.demo.world import Drawing, draw_random, to_pixels

log = logging.getLogger(__name__)

PICTURES = 20_000
_TOGETHER = 50


@dataclass(frozen=True)
class TrainingImages:
    """Latents (N, 4, 8, 8) as the autoencoder gives them, and their captions."""

    latents: Tensor
    captions: list[str]


def draw_training_image(seed: int, number: int) -> Drawing:
    """Training image `number`."""
    return draw_random(Random(f"{seed} unet {number}"))


@torch.no_grad()
def draw_training_images(vae: AutoencoderKL, file: Path, seed: int, count: int = PICTURES) -> TrainingImages:
    """Draw `count` pictures and encode them; kept in `file`, and read from there the next time."""
    if not file.exists():
        latents, captions = [], []
        for first in range(0, count, _TOGETHER):
            drawings = [draw_training_image(seed, number) for number in range(first, min(first + _TOGETHER, count))]
            latents.append(vae.encode(to_pixels([drawing.picture for drawing in drawings])).latent_dist.mean)
            captions += [drawing.caption for drawing in drawings]
            if first % 2000 == 0:
                log.info("drew %d of %d pictures", first, count)
        torch.save({"latents": torch.cat(latents), "captions": captions}, file)
    stored = torch.load(file, weights_only=True)
    return TrainingImages(stored["latents"], stored["captions"])
