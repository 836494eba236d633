"""Figures that say whether an adapter has learned its concept, and what that cost the rest of the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from lib_trainer.demo.world import Drawing, to_pixels
from lib_trainer.models.base import HostModel, SizeCond
from lib_trainer.models.placement import RESIDENT
from lib_trainer.training.objective import objective_of

# Strength -> a context in which the model draws with the adapter at that strength.
Attach = Callable[[float], AbstractContextManager[None]]

TIMESTEPS = (100, 300, 500, 700, 900)
STRENGTHS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
PRIOR_STRENGTHS = (0.0, 0.8, 1.0)
NOISE_SEED = 7


@dataclass(frozen=True)
class LearningFigures:
    """Denoising losses by strength: mean squared errors of the predicted noise, at fixed timesteps and noise.

    Attributes:
        concept: of held-out pictures of the concept.
        prior: of unrelated pictures under their own captions: what the model knew before.
        unseen: of the concept under a caption it was never trained with; empty where there is none.
    """

    concept: dict[float, float]
    prior: dict[float, float]
    unseen: dict[float, float]

    @property
    def gain(self) -> float:
        """Share of the concept's loss that strength 1 takes away."""
        return 1 - self.concept[1.0] / self.concept[0.0]

    @property
    def prior_rise(self) -> float:
        """Share by which strength 1 raises the loss of unrelated pictures."""
        return self.prior[1.0] / self.prior[0.0] - 1

    @property
    def grows_with_strength(self) -> bool:
        """Whether each strength from 0 to 0.8 does better than the one before."""
        losses = [self.concept[strength] for strength in STRENGTHS if strength <= 0.8]
        return all(later < earlier for earlier, later in pairwise(losses))


@dataclass(frozen=True)
class Exam:
    """Pictures to denoise: scaled latents (N, 4, h, w) on the device, pixel sizes and captions, one a picture."""

    latents: Tensor
    sizes: SizeCond
    captions: tuple[str, ...]


def measure(
    model: HostModel,
    attach: Attach,
    concept: Sequence[Drawing],
    prior: Sequence[Drawing],
    unseen: Sequence[Drawing] = (),
    clip_skip: int = 1,
) -> LearningFigures:
    """Figures of whatever `attach(strength)` attaches to the open model.

    Args:
        concept, prior, unseen: see LearningFigures; all pictures of one set have one size.
    """
    exams = [prepare_exam(model, drawings) if drawings else None for drawings in (concept, prior, unseen)]
    model.prepare_training(RESIDENT, text_encoder=True)
    marks: list[dict[float, float]] = [{}, {}, {}]
    for strength in sorted({*STRENGTHS, *PRIOR_STRENGTHS}):
        with attach(strength), torch.no_grad():
            for mark, exam, strengths in zip(marks, exams, (STRENGTHS, PRIOR_STRENGTHS, STRENGTHS), strict=True):
                if exam is not None and strength in strengths:
                    mark[strength] = denoising_loss(model, exam, clip_skip)
    return LearningFigures(*marks)


def prepare_exam(model: HostModel, drawings: Sequence[Drawing]) -> Exam:
    latents = model.encode_images(to_pixels([drawing.picture for drawing in drawings])).to(model.device)
    width, height = drawings[0].picture.size
    pixels = torch.tensor([[height, width, 0, 0, height, width]] * len(drawings), dtype=torch.float32)
    return Exam(latents, SizeCond(pixels.to(model.device)), tuple(drawing.caption for drawing in drawings))


def denoising_loss(model: HostModel, exam: Exam, clip_skip: int) -> float:
    """Mean over all pictures and TIMESTEPS, asked for at once; the same noise at every call."""
    times = len(TIMESTEPS)
    text = model.encode_text(exam.captions, clip_skip).mapped(lambda tensor: tensor.to(model.device)).repeated(times)
    latents = exam.latents.repeat(times, 1, 1, 1)
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(NOISE_SEED)).to(latents)
    t = torch.tensor(TIMESTEPS, device=model.device).repeat_interleave(len(exam.captions))
    objective = objective_of(model)
    x_t, wanted = objective.add_noise(latents, noise, t), objective.target(latents, noise, t)
    answer = model.predict(x_t, t, text, SizeCond(exam.sizes.pixels.repeat(times, 1)))
    return (answer.float() - wanted).square().mean().item()
