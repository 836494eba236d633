"""Teaches the embedded autoencoder to carry the world's pictures through 8× smaller latents."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from random import Random

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL.Image import Image
from torch import Tensor
from torch.nn.functional import avg_pool2d

from lib_trainer.demo.world import draw_random

log = logging.getLogger(__name__)

STEPS = 5000
BATCH = 8
LEARNING_RATE = 1.5e-3
# Noise on the latents keeps neighbouring latents alike; the penalty keeps them from outgrowing it.
LATENT_NOISE = 0.1
SIZE_WEIGHT = 1e-4
# Left alone, an autoencoder this small uses one channel and never finds the others. For the first steps its first
# three channels are held to the shrunken picture, which also leaves latents that look like pictures to the UNet.
GUIDE_STEPS = 1000
GUIDE_FLOOR = 0.02
GUIDE_SCALE = 2.0
SAVE_EVERY = 250


def to_pixels(pictures: list[Image]) -> Tensor:
    """Pictures of one size -> (B, 3, H, W) float32 in −1…1."""
    stacked = np.stack([np.asarray(picture.convert("RGB"), dtype=np.float32) for picture in pictures])
    return torch.from_numpy(stacked).permute(0, 3, 1, 2).contiguous() / 127.5 - 1.0


def rate_at(step: int, total: int, peak: float) -> float:
    """A short linear warm-up, then a cosine down to a hundredth of `peak`."""
    if step < 100:
        return peak * (step + 1) / 100
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - 100) / max(1, total - 100))))


def loss_of(vae: AutoencoderKL, pixels: Tensor, step: int, generator: torch.Generator) -> Tensor:
    """L1 of pixels and of their differences (edges are what the eye sees), plus what keeps the latents in order."""
    latents = vae.encode(pixels).latent_dist.mean
    noise = torch.randn(latents.shape, generator=generator)
    error = vae.decode(latents + LATENT_NOISE * noise).sample - pixels
    edges = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
    guide = (latents[:, :3] - GUIDE_SCALE * avg_pool2d(pixels, 8)).pow(2).mean()
    guide_weight = max(GUIDE_FLOOR, 1 - step / GUIDE_STEPS)
    return error.abs().mean() + 0.5 * edges + guide_weight * guide + SIZE_WEIGHT * latents.pow(2).mean()


def learn_vae(vae: AutoencoderKL, checkpoint: Path, seed: int, steps: int = STEPS) -> None:
    """Train `vae` in place, going on from `checkpoint` where that exists, and leave the result there."""
    optimizer = torch.optim.AdamW(vae.parameters(), lr=LEARNING_RATE, weight_decay=1e-4, betas=(0.9, 0.99))
    start = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        vae.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        start = state["step"]
    vae.train().to(memory_format=torch.channels_last)
    for step in range(start, steps):
        # Seeded by the step: a run that was interrupted sees the pictures it would have seen.
        rng, generator = Random(f"{seed} vae {step}"), torch.Generator().manual_seed(seed * 1_000_003 + step)
        pixels = to_pixels([draw_random(rng).picture for _ in range(BATCH)])
        loss = loss_of(vae, pixels.contiguous(memory_format=torch.channels_last), step, generator)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, steps, LEARNING_RATE)
        optimizer.step()
        if step % 50 == 0:
            log.info("autoencoder step %d of %d, loss %.4f", step, steps, loss.item())
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == steps:
            state = {"model": vae.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1}
            torch.save(state, checkpoint.with_suffix(".part"))
            checkpoint.with_suffix(".part").replace(checkpoint)
    vae.eval()
