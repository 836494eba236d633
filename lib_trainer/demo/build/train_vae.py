"""Trains the embedded autoencoder to carry the world's pictures through 8× smaller latents."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path
from random import Random

import torch
from diffusers import AutoencoderKL
from PIL.Image import Image
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from lib_trainer.demo.world import draw_random, to_pixels

log = logging.getLogger(__name__)
ErrorOf = Callable[[Tensor], Tensor]

STEPS = 5000
REFINE_STEPS = 2400
POLISH_STEPS = 2400
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


def rate_at(step: int, total: int, peak: float) -> float:
    """A short linear warm-up, then a cosine down to a hundredth of `peak`."""
    if step < 100:
        return peak * (step + 1) / 100
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - 100) / max(1, total - 100))))


def picture_error(error: Tensor) -> Tensor:
    """L1 of a picture's error (B, 3, H, W) and of its differences: edges are what the eye sees."""
    edges = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
    return error.abs().mean() + 0.5 * edges


def detail_error(error: Tensor) -> Tensor:
    """As `picture_error`, plus squares: L1 alone is content with a face that has no eyes, if it is unsure of them."""
    return picture_error(error) + error.pow(2).mean()


def loss_of(
    vae: AutoencoderKL, pixels: Tensor, guide_weight: float, generator: torch.Generator, error_of: ErrorOf
) -> Tensor:
    """How badly pixels (B, 3, H, W) come back through noisy latents, plus what keeps the latents in order."""
    latents = vae.encode(pixels).latent_dist.mean
    noise = torch.randn(latents.shape, generator=generator)
    error = vae.decode(latents + LATENT_NOISE * noise).sample - pixels
    guide = (latents[:, :3] - GUIDE_SCALE * avg_pool2d(pixels, 8)).pow(2).mean()
    return error_of(error) + guide_weight * guide + SIZE_WEIGHT * latents.pow(2).mean()


def train_vae(vae: AutoencoderKL, checkpoint: Path, seed: int, steps: int = STEPS) -> None:
    """Train `vae` in place, resuming from `checkpoint` where that exists, and leave the result there."""

    def loss_at(step: int, generator: torch.Generator) -> Tensor:
        # Fades out once the channels have found their meaning.
        guide_weight = max(GUIDE_FLOOR, 1 - step / GUIDE_STEPS)
        return loss_of(vae, _draw_batch(f"{seed} vae {step}"), guide_weight, generator, picture_error)

    _fit(vae, list(vae.parameters()), loss_at, checkpoint, seed, steps)


def refine_vae(vae: AutoencoderKL, checkpoint: Path, seed: int, steps: int = REFINE_STEPS) -> None:
    """Train a learned `vae` on for its details, in place, from `checkpoint` where that exists."""

    def loss_at(step: int, generator: torch.Generator) -> Tensor:
        return loss_of(vae, _draw_batch(f"{seed} refine {step}"), GUIDE_FLOOR, generator, detail_error)

    _fit(vae, list(vae.parameters()), loss_at, checkpoint, seed, steps)


def polish_decoder(
    vae: AutoencoderKL,
    latents: Tensor,
    picture_of: Callable[[int], Image],
    checkpoint: Path,
    seed: int,
    steps: int = POLISH_STEPS,
) -> None:
    """Train only the way from latents (N, 4, 8, 8) back to their pictures, in place, resuming from `checkpoint`.

    The latents stay what they are, so this may be done while the UNet learns from them.
    """

    def loss_at(_step: int, generator: torch.Generator) -> Tensor:
        chosen = torch.randint(len(latents), (BATCH,), generator=generator)
        noise = torch.randn((BATCH, *latents.shape[1:]), generator=generator)
        pixels = to_pixels([picture_of(number) for number in chosen.tolist()])
        return detail_error(vae.decode(latents[chosen] + LATENT_NOISE * noise).sample - pixels)

    _fit(vae, [*vae.post_quant_conv.parameters(), *vae.decoder.parameters()], loss_at, checkpoint, seed, steps)


def _draw_batch(seed: str) -> Tensor:
    rng = Random(seed)
    pixels = to_pixels([draw_random(rng).picture for _ in range(BATCH)])
    return pixels.contiguous(memory_format=torch.channels_last)


def _fit(
    vae: AutoencoderKL,
    parameters: list[nn.Parameter],
    loss_at: Callable[[int, torch.Generator], Tensor],
    checkpoint: Path,
    seed: int,
    steps: int,
) -> None:
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=1e-4, betas=(0.9, 0.99))
    start = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        vae.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        start = state["step"]
    vae.train().to(memory_format=torch.channels_last)
    for step in range(start, steps):
        # Seeded by the step: a run that was interrupted sees the pictures it would have seen.
        loss = loss_at(step, torch.Generator().manual_seed(seed * 1_000_003 + step))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, steps, LEARNING_RATE)
        optimizer.step()
        if step % 50 == 0:
            log.info("%s step %d of %d, loss %.4f", checkpoint.stem, step, steps, loss.item())
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == steps:
            state = {"model": vae.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1}
            torch.save(state, checkpoint.with_suffix(".part"))
            checkpoint.with_suffix(".part").replace(checkpoint)
    vae.eval()
