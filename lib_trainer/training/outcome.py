"""Where a run writes, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lib_trainer.events import Evaluated, Step
from lib_trainer.memory.plan import Plan
from lib_trainer.training.start import Start


@dataclass(frozen=True)
class Output:
    """Where a run writes.

    Attributes:
        target: the adapter file.
        folder: of the run; see `run`.
        saved: the adapter files written so far; filled meanwhile.
        resuming: the folder holds the state of an interrupted run.
        start: the LoRAs that it starts from.
    """

    target: Path
    folder: Path | None
    saved: list[Path]
    resuming: bool
    start: Start


@dataclass
class Outcome:
    """How training ended. `failure` is raised once the host's model is restored.

    Attributes:
        evaluated: the evaluation of the saved weights; None for a run without evaluation.
        path: of the adapter file, once it is written.
        strength: the best one, if the run chose it; None leaves the recipe's.
    """

    plan: Plan
    step: int = 0
    epoch: int = 0
    stopped_early: bool = False
    failure: Exception | None = None
    last: Step | None = None
    evaluated: Evaluated | None = None
    strength: float | None = None
    path: Path | None = None

    @property
    def by_itself(self) -> bool:
        """Nobody stopped it, and nothing failed."""
        return not (self.stopped_early or self.failure)
