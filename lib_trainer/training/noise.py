"""The random tensors of a micro-batch: noise and timesteps, on the CPU.

A setting that is off draws nothing, so that a run without it keeps its random numbers. The formulas are of kohya's
sd-scripts (https://github.com/kohya-ss/sd-scripts, `library/train_util.py` and `library/custom_train_functions.py`).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from lib_trainer.config.loss import LossConfig


def draw_timesteps(batch_size: int, alphas_cumprod: Tensor, config: LossConfig, generator: torch.Generator) -> Tensor:
    """(B,) integer timesteps, uniform from `min_timestep` to below `max_timestep`; that one if they are equal."""
    last = min(config.max_timestep, len(alphas_cumprod))
    if config.min_timestep >= last:
        return torch.full((batch_size,), min(last, len(alphas_cumprod) - 1))
    return torch.randint(config.min_timestep, last, (batch_size,), generator=generator)


def draw_noise(latents: Tensor, config: LossConfig, generator: torch.Generator) -> Tensor:
    """The noise (B, C, H, W) that the model predicts, on the CPU."""
    noise = torch.randn(latents.shape, generator=generator)
    if config.noise_offset:
        noise = noise + _offset(latents, config, generator)
    if config.multires_noise_iterations:
        noise = _multires(noise, config, generator)
    return noise


def perturb(noise: Tensor, config: LossConfig, generator: torch.Generator) -> Tensor:
    """The noise that is added to the input: ε + γ·randn, where only ε is the target.

    Source: Ning et al., "Input Perturbation Reduces Exposure Bias in Diffusion Models" (2023).
    """
    if not config.ip_noise_gamma:
        return noise
    strength = _strength(config.ip_noise_gamma, config.ip_noise_gamma_random_strength, generator)
    return noise + strength * torch.randn(noise.shape, generator=generator)


def _offset(latents: Tensor, config: LossConfig, generator: torch.Generator) -> Tensor:
    """The shift of each image's channels: max(0, o + a·|mean of the channel|) · randn(B, C, 1, 1).

    Source: Guttenberg, "Diffusion with Offset Noise" (2023); `a` is sd-scripts' adaptive_noise_scale.
    """
    offset = _strength(config.noise_offset, config.noise_offset_random_strength, generator)
    if config.adaptive_noise_scale:
        # Bright and dark images then get the larger offset.
        mean = latents.mean(dim=(2, 3), keepdim=True).abs()
        offset = (offset + config.adaptive_noise_scale * mean).clamp(min=0)
    return offset * torch.randn((*latents.shape[:2], 1, 1), generator=generator)


def _multires(noise: Tensor, config: LossConfig, generator: torch.Generator) -> Tensor:
    """Noise plus dⁱ times noise that is rⁱ times coarser, for i = 0, 1, …, with r from 2 to 4; scaled to deviation 1.

    Source: Whitaker, "Multi-Resolution Noise for Diffusion Model Training" (2023).
    """
    height, width = noise.shape[2:]
    for i in range(config.multires_noise_iterations):
        ratio = float(torch.rand(1, generator=generator)) * 2 + 2
        size = (max(1, int(height / ratio**i)), max(1, int(width / ratio**i)))
        coarse = torch.randn((*noise.shape[:2], *size), generator=generator)
        noise = noise + config.multires_noise_discount**i * interpolate(coarse, (height, width), mode="bilinear")
        # Coarser than one pixel adds nothing but another offset.
        if 1 in size:
            break
    return noise / noise.std()


def _strength(most: float, at_random: bool, generator: torch.Generator) -> float | Tensor:
    return torch.rand(1, generator=generator) * most if at_random else most
