"""The training objective of a family: how noise is added, the target of the prediction, and its loss.

`fit` and the evaluation know a model's objective by this interface alone. Timesteps run from 0, no noise, to
1000; everything is float32 on the device of its inputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from lib_trainer.config.recipe import Recipe
from lib_trainer.errors import UserError
from lib_trainer.models.base import HostModel
from lib_trainer.training.diffusion import Prediction, add_noise, split_prediction, target, zero_terminal
from lib_trainer.training.flow import FlowObjective
from lib_trainer.training.loss import huber_thresholds, loss_weights
from lib_trainer.training.noise import draw_noise, draw_timesteps, perturb


class Objective(Protocol):
    """One kind of denoising objective."""

    def draw(self, latents: Tensor, recipe: Recipe, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Draws noise and timesteps for latents (B, C, h, w).

        Returns:
            (noised latents (B, C, h, w), the noise to predict, timesteps (B,)).
        """

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """The noised latents (B, C, h, w) at timesteps (B,)."""

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """The target of the prediction (B, C, h, w)."""

    def weights(self, timesteps: Tensor, recipe: Recipe) -> Tensor:
        """(B,) factor of each image's loss."""

    def thresholds(self, timesteps: Tensor, recipe: Recipe) -> Tensor | None:
        """(B,) the error beyond which a Huber loss grows linearly; None for other losses."""

    def split(self, x_t: Tensor, answer: Tensor, timestep: float) -> tuple[Tensor, Tensor]:
        """(clean latents, noise) that an answer at one timestep means."""

    def drawing_times(self, steps: int) -> list[float]:
        """Timesteps of a picture that is drawn in so many steps, the noisiest first."""


@dataclass(frozen=True)
class DiffusionObjective:
    """Models that predict the noise or the velocity of a discrete schedule."""

    alphas_cumprod: Tensor
    prediction: Prediction

    def draw(self, latents: Tensor, recipe: Recipe, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        noise = draw_noise(latents, recipe.loss, generator)
        timesteps = draw_timesteps(len(latents), self.alphas_cumprod, recipe.loss, generator)
        return self.add_noise(latents, perturb(noise, recipe.loss, generator), timesteps), noise, timesteps

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        return add_noise(latents, noise, timesteps, self.alphas_cumprod)

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        return target(latents, noise, timesteps, self.alphas_cumprod, self.prediction)

    def weights(self, timesteps: Tensor, recipe: Recipe) -> Tensor:
        return loss_weights(timesteps, self.alphas_cumprod, recipe.loss, self.prediction)

    def thresholds(self, timesteps: Tensor, recipe: Recipe) -> Tensor | None:
        return huber_thresholds(timesteps, self.alphas_cumprod, recipe.loss)

    def split(self, x_t: Tensor, answer: Tensor, timestep: float) -> tuple[Tensor, Tensor]:
        return split_prediction(x_t, answer, self.alphas_cumprod[int(timestep)], self.prediction)

    def drawing_times(self, steps: int) -> list[float]:
        last = len(self.alphas_cumprod) - 1
        return [round(last * (1 - index / steps)) for index in range(steps)]


def objective_of(model: HostModel) -> Objective:
    """The objective of the model's family."""
    if model.prediction == "flow":
        return FlowObjective(model.family.flow_shift, model.family.shape.patch)
    return DiffusionObjective(model.alphas_cumprod, model.prediction)


def schedule_of(model: HostModel, recipe: Recipe) -> Tensor | None:
    """The noise schedule that the recipe trains on; the model's own unless it asks for zero terminal SNR.

    Raises:
        UserError: the recipe asks for it, and the model predicts the noise.
    """
    if not recipe.loss.zero_terminal_snr or model.alphas_cumprod is None:
        return model.alphas_cumprod
    if model.prediction != "v":
        raise UserError(
            f"zero_terminal_snr needs a checkpoint that predicts v; {model.checkpoint.name} predicts the noise.",
            "Turn it off.",
        )
    return zero_terminal(model.alphas_cumprod)


def require_trainable_schedule(model: HostModel) -> None:
    """Raises UserError for a zero-terminal-SNR schedule with a model that predicts the noise."""
    # At the last timestep x_t is pure noise: predicting it would teach nothing about the image.
    if model.prediction == "epsilon" and float(model.alphas_cumprod.min()) <= 0:
        raise UserError(
            f"{model.checkpoint.name} has a zero-terminal-SNR schedule but predicts the noise.",
            "Such a checkpoint must predict v; correct its configuration in the WebUI.",
        )
