"""The diffusion maths of one training step. Everything is float32 on the device of its inputs."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Prediction = Literal["epsilon", "v"]


def draw_timesteps(batch_size: int, alphas_cumprod: Tensor, generator: torch.Generator) -> Tensor:
    """(B,) whole timesteps, uniform over the schedule, on the CPU."""
    return torch.randint(0, len(alphas_cumprod), (batch_size,), generator=generator)


def draw_noise(shape: torch.Size, noise_offset: float, generator: torch.Generator) -> Tensor:
    """Normal noise (B, C, H, W) on the CPU, each picture's channels moved by `noise_offset` · randn(B, C, 1, 1).

    Source: Guttenberg, "Diffusion with Offset Noise" (2023).
    """
    noise = torch.randn(shape, generator=generator)
    if noise_offset:
        noise = noise + noise_offset * torch.randn((*shape[:2], 1, 1), generator=generator)
    return noise


def add_noise(latents: Tensor, noise: Tensor, timesteps: Tensor, alphas_cumprod: Tensor) -> Tensor:
    """x_t = √ᾱ·x_0 + √(1−ᾱ)·ε (Ho et al., 2020). latents, noise (B, C, H, W); timesteps (B,)."""
    alpha = _per_picture(alphas_cumprod, timesteps, latents)
    return alpha.sqrt() * latents + (1 - alpha).sqrt() * noise


def target(latents: Tensor, noise: Tensor, timesteps: Tensor, alphas_cumprod: Tensor, prediction: Prediction) -> Tensor:
    """What the UNet should say: the noise, or v = √ᾱ·ε − √(1−ᾱ)·x_0 (Salimans & Ho, 2022)."""
    if prediction == "epsilon":
        return noise
    alpha = _per_picture(alphas_cumprod, timesteps, latents)
    return alpha.sqrt() * noise - (1 - alpha).sqrt() * latents


def min_snr_weights(timesteps: Tensor, alphas_cumprod: Tensor, gamma: float, prediction: Prediction) -> Tensor:
    """(B,) loss weights: min(snr, γ)/snr for ε, min(snr, γ)/(snr + 1) for v; ones where γ is 0.

    Source: Hang et al., "Efficient Diffusion Training via Min-SNR Weighting Strategy" (2023), snr = ᾱ/(1−ᾱ).
    """
    if not gamma:
        return torch.ones(len(timesteps), device=timesteps.device)
    alpha = alphas_cumprod.to(timesteps.device)[timesteps]
    snr = alpha / (1 - alpha)
    return snr.clamp(max=gamma) / (snr if prediction == "epsilon" else snr + 1)


def weighted_loss(predicted: Tensor, wanted: Tensor, weights: Tensor) -> Tensor:
    """Mean over the batch of each picture's mean squared error (B, C, H, W) times its weight (B,)."""
    per_picture = (predicted.float() - wanted.float()).square().flatten(1).mean(1)
    return (per_picture * weights).mean()


def _per_picture(alphas_cumprod: Tensor, timesteps: Tensor, like: Tensor) -> Tensor:
    return alphas_cumprod.to(like.device, like.dtype)[timesteps.to(like.device)].reshape(-1, 1, 1, 1)
