"""What an adapter has learned and what it has cost, as pure functions of denoising losses.

Symbols: ℓ_s(t) is the mean squared error of the model's output at timestep t with the adapter at strength s, for fixed
pictures and noises, so that ℓ_0 is the base's own. A table of losses is (P, T): pictures × timesteps, float32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lib_trainer.evaluation.constants import DRIFT_WEIGHT, FULL, PARTIAL, STRENGTHS, WORTH_SHARE


def squared_errors(predicted: Tensor, wanted: Tensor) -> Tensor:
    """(N,) mean squared error of each of N outputs (N, C, H, W)."""
    return (predicted.float() - wanted.float()).square().flatten(1).mean(1)


def shares_gone(losses: Tensor, base: Tensor) -> Tensor:
    """(P,) what each picture adds to the share of the loss that is gone: mean over t of (ℓ_0 − ℓ_s) / mean_P ℓ_0.

    Their mean is `share_gone`, and their differences between two steps are paired.
    """
    return ((base - losses) / base.mean(0)).mean(1)


def share_gone(losses: Tensor, base: Tensor) -> float:
    """L on held-out pictures, T on training pictures: mean over timesteps of 1 − ℓ_s(t) / ℓ_0(t)."""
    return float(shares_gone(losses, base).mean())


def drift(moved: Tensor, base: Tensor) -> float:
    """E: mean over timesteps of ‖ε_s − ε_0‖² / ℓ_0, on unrelated prompts: in units of the base's own error.

    Args:
        moved: (P, T) mean squared difference between the outputs with and without the adapter.
        base: (P, T) the base's own losses ℓ_0 on the same latents.
    """
    return float((moved.mean(0) / base.mean(0)).mean())


@dataclass(frozen=True)
class Parabola:
    """A share of the loss that is gone, over strength s: slope·s + bend·s², 0 at strength 0.

    The loss of a linear change of the model's output is quadratic in its strength.
    """

    slope: float
    bend: float

    @classmethod
    def through(cls, partial: float, full: float) -> Parabola:
        """The parabola through (0, 0), (PARTIAL, partial) and (FULL, full)."""
        bend = (full - partial * FULL / PARTIAL) / (FULL * (FULL - PARTIAL))
        return cls(full / FULL - bend * FULL, bend)

    def at(self, strength: float) -> float:
        return strength * (self.slope + self.bend * strength)

    @property
    def peak(self) -> float:
        """s*: the strength with the least loss; 0 where every strength makes it worse, inf where none is enough."""
        if self.slope <= 0 and self.bend <= 0:
            return 0.0
        return max(0.0, -self.slope / (2 * self.bend)) if self.bend < 0 else math.inf


def bound(with_trigger: float, with_class: float) -> float:
    """Bind: L(trigger) − L(class word), each against its own base. At or below 0 the word calls nothing."""
    return with_trigger - with_class


@dataclass(frozen=True)
class Figures:
    """What one evaluation has found, at strength 1 unless noted.

    Attributes:
        trained: T over strength.
        held_out: L over strength; None where no picture is held out.
        drift: E.
        bound: Bind; None without a trigger word.
        by_picture: name -> share of its loss that is gone.
    """

    step: int
    trained: Parabola
    held_out: Parabola | None
    drift: float
    bound: float | None
    by_picture: dict[str, float]

    @property
    def learned(self) -> float:
        """L; T where no picture is held out."""
        return (self.held_out or self.trained).at(FULL)

    @property
    def memorised(self) -> float | None:
        """G = T − L; None where no picture is held out."""
        return None if self.held_out is None else self.trained.at(FULL) - self.held_out.at(FULL)

    @property
    def least_loss_strength(self) -> float:
        """s*, on held-out pictures where there are some."""
        return (self.held_out or self.trained).peak

    def gone(self, strength: float) -> float:
        """½L + ½T at this strength; T without held-out pictures."""
        return (self.trained.at(strength) + (self.held_out or self.trained).at(strength)) / 2

    def score(self, strength: float) -> float:
        """J = ½L + ½T − 0.15E at this strength; without held-out pictures T − 0.15E. Drift grows with its square."""
        return self.gone(strength) - DRIFT_WEIGHT * self.drift * strength**2

    def best(self) -> tuple[float, float]:
        """(the best of STRENGTHS, J there): the strongest at which no more than WORTH_SHARE of the least loss is lost.

        What is drawn still becomes more like the pictures where the loss has become flat, so that the strength with
        the least loss, or the best J, would be too weak.
        """
        most = max(self.gone(strength) for strength in STRENGTHS)
        enough = most - WORTH_SHARE * abs(most)
        strength = max(strength for strength in STRENGTHS if self.gone(strength) >= enough)
        return strength, self.score(strength)


def paired_difference(before: Sequence[float], after: Sequence[float]) -> tuple[float, float]:
    """(mean of after − before, its standard error) over the same pictures; the error of one picture is infinite."""
    steps = torch.tensor(after, dtype=torch.float64) - torch.tensor(before, dtype=torch.float64)
    error = float(steps.std() / math.sqrt(len(steps))) if len(steps) > 1 else math.inf
    return float(steps.mean()), error
