"""Which step and strength of a run are the best, and whether more steps would help."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from lib_trainer.evaluation.constants import PATIENCE, PATIENT_SHARE, WORTH_SHARE
from lib_trainer.evaluation.measures import Figures

# No forecast goes beyond so many times the steps taken.
_MOST_FORECAST = 3.0
_LEAST = 1e-6


@dataclass
class Choice:
    """The scores of a run so far.

    Attributes:
        steps, scores: of every evaluation: the step, and the best J over strengths.
        best_step, best_strength: where J is best.
    """

    steps: list[int] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    best_step: int = 0
    best_strength: float = 1.0

    def take(self, figures: Figures) -> bool:
        """Notes an evaluation; whether it is the best so far."""
        strength, score = figures.best()
        return self.note(figures.step, score, strength)

    def note(self, step: int, score: float, strength: float) -> bool:
        """Notes the best J of a step and the strength it has it at; whether it is the best so far."""
        is_best = not self.scores or score > max(self.scores)
        self.steps.append(step)
        self.scores.append(score)
        if is_best:
            self.best_step, self.best_strength = step, strength
        return is_best

    @property
    def converged(self) -> bool:
        """Whether the last evaluations have brought no gain that is worth their steps."""
        return bool(self.steps) and self._settled_steps()[-1:] == self.steps[-1:]

    @property
    def settled_at(self) -> int | None:
        """The first step after which the run had converged."""
        return next(iter(self._settled_steps()), None)

    def _settled_steps(self) -> list[int]:
        """Those of `steps` after which it had converged. Small gains add up: since the last one that was worth it."""
        found, place, known = [], 0, self.scores[0] if self.scores else 0.0
        for index, (step, score) in enumerate(zip(self.steps, self.scores, strict=True)):
            if score > known + WORTH_SHARE * max(abs(known), _LEAST):
                place, known = index, score
            if index - place >= PATIENCE and step - self.steps[place] >= PATIENT_SHARE * step:
                found.append(step)
        return found

    @property
    def is_flat(self) -> bool:
        """Whether the run has converged, or its last evaluation has brought next to nothing."""
        if self.converged or len(self.scores) < 2:
            return self.converged
        return self.scores[-1] - self.scores[-2] <= WORTH_SHARE * max(abs(self.scores[-1]), _LEAST)

    def steps_to_go(self) -> int:
        """About how many more steps would still help, as the last gains shrink; 0 where no more gain is in sight."""
        if self.is_flat:
            return 0
        if len(self.scores) < 2:
            return max(1, self.steps[-1] if self.steps else 0)
        gain, width = self.scores[-1] - self.scores[-2], self.steps[-1] - self.steps[-2]
        least = WORTH_SHARE * max(abs(self.scores[-1]), _LEAST)
        before = self.scores[-2] - (self.scores[-3] if len(self.scores) > 2 else 0.0)
        # Gains that shrink by a fixed factor, as of an exponential approach; no quicker than by a tenth.
        factor = min(0.9, gain / before) if before > gain else 0.9
        more = width * max(1, math.ceil(math.log(least / gain) / math.log(factor)))
        return min(more, round(_MOST_FORECAST * self.steps[-1]))
