"""What happens between two steps: evaluation, adapter checkpoints, the resume state and samples, in this order."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from lib_trainer.errors import UserError
from lib_trainer.events import Command, Evaluated, Event, Notice, StateSaved, Step
from lib_trainer.training.comparison import Comparison
from lib_trainer.training.loop import Training
from lib_trainer.training.resume_state import Evaluator, load_state, save_state
from lib_trainer.training.sampling import Sampling
from lib_trainer.training.saving import Saving

# How long after the start the first resume state is saved.
FIRST_STATE_SECONDS = 30.0


class Evaluating(Evaluator, Protocol):
    """Measures a run between its steps; `lib_trainer.evaluation` does.

    Attributes:
        chooses: the run ends when more steps do not help, and saves the best step instead of the last.
    """

    chooses: bool

    @property
    def ended(self) -> bool:
        """More steps do not help: the run should end."""

    @property
    def best_step(self) -> int:
        """0 before the first evaluation."""

    def is_due(self, step: Step) -> bool: ...

    def evaluate(self, step: Step) -> Iterator[Event]: ...

    def verdict(self) -> Evaluated | None:
        """The evaluation of the file that the run saves."""

    def restore_best(self) -> None:
        """Loads the weights of the best step."""


@dataclass
class ResumeSaver:
    """Saves the resume state to `path`; without a path it saves nothing.

    Attributes:
        pictures: the dataset's fingerprint.
        saved_at: monotonic clock of the last time, in seconds.
        times: how often it was saved by the clock.
    """

    path: Path | None
    training: Training
    pictures: str
    evaluating: Evaluator | None = None
    saved_at: float = field(default_factory=time.monotonic)
    times: int = 0

    def resume(self) -> int:
        """Loads the state of an interrupted run; the number of steps it had taken, 0 for a new run."""
        return load_state(self.path, self.training, self.pictures, self.evaluating) if self.path else 0

    def is_due(self) -> bool:
        minutes = self.training.recipe.output.resume_every_minutes
        # Soon after the start, then less and less often: the first minutes are lost as easily as later ones.
        wait_seconds = min(60 * minutes, FIRST_STATE_SECONDS * 2**self.times)
        return bool(minutes) and time.monotonic() - self.saved_at >= wait_seconds

    def save(self, step: int) -> Iterator[Event]:
        """Raises UserError if the disk is full."""
        if self.path is not None:
            save_state(self.path, self.training, step, self.pictures, self.evaluating)
            self.saved_at = time.monotonic()
            self.times += 1
            yield StateSaved(step)


@dataclass(frozen=True)
class Callbacks:
    """Everything that the recipe asks for between steps, and the commands of the person."""

    saving: Saving
    resume_saver: ResumeSaver
    sampling: Sampling
    evaluating: Evaluating | None = None
    comparison: Comparison | None = None

    @property
    def ended(self) -> bool:
        """More steps do not help: the run should end."""
        return self.evaluating is not None and self.evaluating.ended

    @property
    def wants_more(self) -> bool:
        """The run is at its end, and more steps may help."""
        found = self.evaluating.verdict() if self.evaluating else None
        return found is not None and found.more_steps > 0

    def after(self, step: Step, command: Command | None) -> Generator[Event, Command | None, None]:
        """What is due after this step. Every event may be answered with another command."""
        if self.evaluating and self.evaluating.is_due(step):
            with self.resume_saver.training.averaged():
                # First, so that a checkpoint saved now knows of it, and the state too.
                yield from self.evaluating.evaluate(step)
        commands = self._due(step)
        # A command that is due anyway is carried out once.
        commands += [command] if command and command not in commands else []
        while commands:
            for event in self._carry_out(commands.pop(0), step):
                asked = yield event
                if asked:
                    commands.append(asked)

    def save_final(self, step: int, epoch: int, *, chosen: bool) -> Iterator[Event]:
        """The adapter file after `step`, once the resume state is safe: a resume then only writes the file again.

        Args:
            chosen: save the best step instead, at its best strength; the last step becomes a checkpoint beside it.
        """
        try:
            # Not told as an event: once the file is written, a run that is done needs no state.
            for _ in self.resume_saver.save(step):
                pass
        except UserError as error:
            yield Notice(f"The resume state was not saved: {error.message}")
        training = self.resume_saver.training
        training.end()
        if training.average and training.recipe.training.ema_saved == "beside":
            with training.average.in_place():
                yield from self.saving.save_beside("ema", step, epoch)
        evaluating, strength = self.evaluating, None
        evaluated = evaluating.verdict() if evaluating else None
        # Whoever stopped the run wants its end now, without pictures.
        compared = self.comparison if evaluated and chosen else None
        if compared:
            yield from compared.draw(step, 1.0)
        if evaluating and evaluated and evaluating.chooses and chosen:
            strength = evaluated.best_strength
            if evaluating.best_step != step:
                # Nothing that was learned is lost: who prefers the last step finds it beside the best.
                yield from self.saving.save_step(step, epoch)
                evaluating.restore_best()
                step = evaluating.best_step
                epoch = -(-step // self.saving.schedule.steps_per_epoch)
        yield from self.saving.save_final(step, epoch, strength=strength, evaluated=evaluated)
        if compared and evaluated:
            yield from compared.draw(step, evaluated.best_strength, evaluated.best_strength / 2)
            yield from compared.save(f"{self.saving.target.stem}.report.png", step)

    def at_the_end(self, last: Step) -> Iterator[Event]:
        """What is due after the final file."""
        if self.sampling.is_due(last):
            yield from self.sampling.draw(last)

    def _due(self, step: Step) -> list[Command]:
        # The final file replaces the last step's checkpoint; its samples come after that (`at_the_end`).
        if step.number == step.total:
            return []
        save = self.saving.is_due(step)
        due = {
            Command.SAVE: save,
            # A resumed run writes no checkpoint twice, so the state is saved with each.
            Command.SAVE_STATE: save or self.resume_saver.is_due(),
            Command.SAMPLE: self.sampling.is_due(step),
        }
        return [command for command, is_due in due.items() if is_due]

    def _carry_out(self, command: Command, step: Step) -> Iterator[Event]:
        if command is Command.SAVE_STATE:
            # A resumed run continues from the weights that the optimizer steps from.
            yield from self.resume_saver.save(step.number)
            return
        with self.resume_saver.training.averaged():
            yield from self.saving.save_checkpoint(step) if command is Command.SAVE else self.sampling.draw(step)
