"""What happens between two steps: evaluation, copies, what a resume needs, and test pictures, in this order."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from lib_trainer.events import Command, Evaluated, Event, Kept, Step
from lib_trainer.training.loop import Training
from lib_trainer.training.resume_state import Evaluator, load_state, save_state
from lib_trainer.training.sampling import Sampling
from lib_trainer.training.saving import Saving


class Evaluating(Evaluator, Protocol):
    """Measures a run between its steps; `lib_trainer.evaluation` does.

    Attributes:
        chooses: the run ends when more steps do not help, and its file is that of the best step.
    """

    chooses: bool

    @property
    def ended(self) -> bool:
        """More steps do not help, and the run is to end."""

    @property
    def best_step(self) -> int:
        """0 before the first evaluation."""

    def is_due(self, step: Step) -> bool: ...

    def evaluate(self, step: Step) -> Iterator[Event]: ...

    def verdict(self) -> Evaluated | None:
        """What is to be said of the file that the run leaves."""

    def restore_best(self) -> None:
        """Puts the weights of the best step back."""


@dataclass
class ResumeSaver:
    """Keeps what a resume needs in `path`; without a path nothing is kept.

    Attributes:
        pictures: the dataset's fingerprint.
        kept_at: monotonic clock of the last time, in seconds.
    """

    path: Path | None
    training: Training
    pictures: str
    evaluating: Evaluator | None = None
    kept_at: float = field(default_factory=time.monotonic)

    def go_on(self) -> int:
        """Puts back what an earlier life of this run has kept; the steps that it had taken."""
        return load_state(self.path, self.training, self.pictures, self.evaluating) if self.path else 0

    def is_due(self) -> bool:
        minutes = self.training.recipe.output.resume_every_minutes
        return bool(minutes) and time.monotonic() - self.kept_at >= 60 * minutes

    def keep(self, step: int) -> Iterator[Event]:
        """Raises UserError when the disk is full."""
        if self.path is not None:
            save_state(self.path, self.training, step, self.pictures, self.evaluating)
            self.kept_at = time.monotonic()
            yield Kept(step)


@dataclass(frozen=True)
class Callbacks:
    """Everything that the recipe asks for between steps, and what is wished for on the way."""

    saving: Saving
    keeping: ResumeSaver
    sampling: Sampling
    evaluating: Evaluating | None = None

    @property
    def ended(self) -> bool:
        """More steps do not help, and the run is to end."""
        return self.evaluating is not None and self.evaluating.ended

    @property
    def wants_more(self) -> bool:
        """The run is at its end, and more steps may help."""
        found = self.evaluating.verdict() if self.evaluating else None
        return found is not None and found.more_steps > 0

    def after(self, step: Step, command: Command | None) -> Generator[Event, Command | None, None]:
        """What is due after this step. Every event may be answered with another wish."""
        if self.evaluating and self.evaluating.is_due(step):
            yield from self.evaluating.evaluate(step)
        commands = self._due(step)
        commands += [command] if command and command not in commands else []
        while commands:
            for event in self._fulfil(commands.pop(0), step):
                asked = yield event
                if asked:
                    commands.append(asked)

    def save_final(self, target: Path, step: int, epoch: int, *, chosen: bool) -> Iterator[Event]:
        """The adapter file after `step`.

        Args:
            chosen: it may be the best step's instead, at its best strength; the last step's then stays beside it.
        """
        evaluating, strength = self.evaluating, None
        evaluated = evaluating.verdict() if evaluating else None
        if evaluating and evaluated and evaluating.chooses and chosen:
            strength = evaluated.best_strength
            if evaluating.best_step != step:
                yield from self.saving.save_step(step, epoch)
                evaluating.restore_best()
                step = evaluating.best_step
                epoch = -(-step // self.saving.schedule.steps_per_epoch)
        yield self.saving.save(target, step, epoch, strength=strength, evaluated=evaluated)

    def at_the_end(self, last: Step) -> Iterator[Event]:
        """What is due after the final file."""
        if self.sampling.is_due(last, self.saving.schedule.steps_per_epoch):
            yield from self.sampling.draw(last)

    def _due(self, step: Step) -> list[Command]:
        is_last = step.number == step.total
        save = self.saving.is_due(step)
        sample = self.sampling.is_due(step, self.saving.schedule.steps_per_epoch)
        # The last step is the final file's; its pictures come after that.
        keep = not is_last and (save or self.keeping.is_due())
        due = {Command.SAVE: save, Command.KEEP: keep, Command.SAMPLE: sample and not is_last}
        return [command for command, is_due in due.items() if is_due]

    def _fulfil(self, command: Command, step: Step) -> Iterator[Event]:
        if command is Command.SAVE:
            yield from self.saving.save_stage(step)
        elif command is Command.KEEP:
            yield from self.keeping.keep(step.number)
        else:
            yield from self.sampling.draw(step)
