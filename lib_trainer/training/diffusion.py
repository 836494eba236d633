"""The diffusion maths of one training step. Everything is float32 on the device of its inputs."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

Prediction = Literal["epsilon", "v"]


def add_noise(latents: Tensor, noise: Tensor, timesteps: Tensor, alphas_cumprod: Tensor) -> Tensor:
    """x_t = √ᾱ·x_0 + √(1−ᾱ)·ε (Ho et al., 2020). latents, noise (B, C, H, W); timesteps (B,)."""
    alpha = _per_image(alphas_cumprod, timesteps, latents)
    return alpha.sqrt() * latents + (1 - alpha).sqrt() * noise


def target(latents: Tensor, noise: Tensor, timesteps: Tensor, alphas_cumprod: Tensor, prediction: Prediction) -> Tensor:
    """The target of the prediction: the noise, or v = √ᾱ·ε − √(1−ᾱ)·x_0 (Salimans & Ho, 2022)."""
    if prediction == "epsilon":
        return noise
    alpha = _per_image(alphas_cumprod, timesteps, latents)
    return alpha.sqrt() * noise - (1 - alpha).sqrt() * latents


def zero_terminal(alphas_cumprod: Tensor) -> Tensor:
    """The schedule with √ᾱ shifted to end at 0, and scaled to begin as before.

    Source: Lin et al., "Common Diffusion Noise Schedules and Sample Steps are Flawed" (2024), algorithm 1.
    """
    root = alphas_cumprod.sqrt()
    first, last = root[0], root[-1]
    return ((root - last) * first / (first - last)).square()


def split_prediction(x_t: Tensor, answer: Tensor, alpha: Tensor, prediction: Prediction) -> tuple[Tensor, Tensor]:
    """(clean latents, noise) that an answer at noise level ᾱ means: ε, or v = √ᾱ·ε − √(1−ᾱ)·x_0."""
    signal, noise = alpha.sqrt(), (1 - alpha).sqrt()
    if prediction == "v":
        return signal * x_t - noise * answer, noise * x_t + signal * answer
    # A schedule of zero terminal SNR never comes here: it needs v.
    return (x_t - noise * answer) / signal, answer


def _per_image(alphas_cumprod: Tensor, timesteps: Tensor, like: Tensor) -> Tensor:
    """(B, 1, 1, 1), where `like` lies."""
    return alphas_cumprod.to(like)[timesteps].reshape(-1, 1, 1, 1)
