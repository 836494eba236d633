"""Flow matching: the model says how to get from a picture to noise on a straight line.

x_t = (1−σ)·x_0 + σ·n, and the model predicts n − x_0 (Liu et al., "Flow Straight and Fast", 2022; Esser et al.,
"Scaling Rectified Flow Transformers for High-Resolution Image Synthesis", 2024). Timesteps are 1000·σ. How σ is drawn
goes by the names of kohya's sd-scripts (https://github.com/kohya-ss/sd-scripts, `library/flux_train_utils.py`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lib_trainer.config.loss import TIMESTEPS
from lib_trainer.config.recipe import Recipe

# Flux's shift by size: e^mu, with mu on a line from 0.5 at 256 tokens to 1.15 at 4096.
_FEW_TOKENS, _MANY_TOKENS, _LEAST_MU, _MOST_MU = 256, 4096, 0.5, 1.15


def shifted(sigma: Tensor, shift: float) -> Tensor:
    """s·σ / (1 + (s−1)·σ): for s > 1 closer to 1. Source: Esser et al., section 5.3.2."""
    return shift * sigma / (1 + (shift - 1) * sigma)


def flux_shift(height: int, width: int, patch: int = 2) -> float:
    """The shift e^mu for latents of height × width cells, patch × patch of which are a token.

    Source: https://github.com/black-forest-labs/flux; with a patch of 1 it is musubi-tuner's `flux2_shift`.
    """
    tokens = (height // patch) * (width // patch)
    slope = (_MOST_MU - _LEAST_MU) / (_MANY_TOKENS - _FEW_TOKENS)
    return math.exp(_LEAST_MU + slope * (tokens - _FEW_TOKENS))


@dataclass(frozen=True)
class FlowObjective:
    """Models that are trained by flow matching; implements `training.objective.Objective`.

    Args:
        usual_shift: the family's, for recipes that name none.
        patch: side of a token, in latent cells.
    """

    usual_shift: float
    patch: int = 2

    def draw(self, latents: Tensor, recipe: Recipe, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        noise = torch.randn(latents.shape, generator=generator)
        timesteps = self._draw_timesteps(latents, recipe, generator)
        return self.add_noise(latents, noise, timesteps), noise, timesteps

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        sigma = _sigma(timesteps).reshape(-1, 1, 1, 1)
        return (1 - sigma) * latents + sigma * noise

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        return noise - latents

    def weights(self, timesteps: Tensor, recipe: Recipe) -> Tensor:
        """σ² for `sigma_scaled`: the clean picture that an answer v means is x_t − σ·v, so its error is σ times v's."""
        if recipe.flow.model_prediction_type == "sigma_scaled":
            return _sigma(timesteps).square()
        return torch.ones(len(timesteps), device=timesteps.device)

    def thresholds(self, timesteps: Tensor, recipe: Recipe) -> Tensor | None:
        """As `loss.huber_thresholds`, with σ/(1−σ) for the noise of the schedule `snr`: (1−c)·(1−σ)² + c."""
        config = recipe.loss
        if config.loss_type not in ("huber", "smooth_l1"):
            return None
        sigma, c = _sigma(timesteps), config.huber_c
        if config.huber_schedule == "exponential":
            return torch.exp(math.log(c) * sigma) * config.huber_scale
        if config.huber_schedule == "snr":
            return (1 - c) * (1 - sigma).square() + c
        return torch.full_like(sigma, c * config.huber_scale)

    def split(self, x_t: Tensor, answer: Tensor, timestep: float) -> tuple[Tensor, Tensor]:
        sigma = timestep / TIMESTEPS
        # Solved from x_t = (1−σ)·x_0 + σ·n and v = n − x_0.
        return x_t - sigma * answer, x_t + (1 - sigma) * answer

    def drawing_times(self, steps: int) -> list[float]:
        return (TIMESTEPS * shifted(1 - torch.arange(steps) / steps, self.usual_shift)).tolist()

    def _draw_timesteps(self, latents: Tensor, recipe: Recipe, generator: torch.Generator) -> Tensor:
        """(B,) from `min_timestep` to `max_timestep`: the distribution, squeezed into that range."""
        flow, count = recipe.flow, len(latents)
        if flow.timestep_sampling == "uniform":
            sigma = torch.rand(count, generator=generator)
        else:
            # The logit-normal distribution: Esser et al., section 3.1.
            sigma = torch.sigmoid(flow.sigmoid_scale * torch.randn(count, generator=generator))
        if flow.timestep_sampling == "shift":
            sigma = shifted(sigma, flow.discrete_flow_shift or self.usual_shift)
        elif flow.timestep_sampling == "flux_shift":
            sigma = shifted(sigma, flux_shift(*latents.shape[2:], self.patch))
        low, high = recipe.loss.min_timestep, recipe.loss.max_timestep
        return low + (high - low) * sigma


def _sigma(timesteps: Tensor) -> Tensor:
    return timesteps.float() / TIMESTEPS
