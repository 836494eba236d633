"""What happens between two steps: copies, what a resume needs, and test pictures, in this order."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from lib_trainer.events import Command, Event, Kept, Step
from lib_trainer.training.loop import Training
from lib_trainer.training.resume_state import load_state, save_state
from lib_trainer.training.sampling import Sampling
from lib_trainer.training.saving import Saving


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
    kept_at: float = field(default_factory=time.monotonic)

    def go_on(self) -> int:
        """Puts back what an earlier life of this run has kept; the steps that it had taken."""
        return load_state(self.path, self.training, self.pictures) if self.path else 0

    def is_due(self) -> bool:
        minutes = self.training.recipe.output.resume_every_minutes
        return bool(minutes) and time.monotonic() - self.kept_at >= 60 * minutes

    def keep(self, step: int) -> Iterator[Event]:
        """Raises UserError when the disk is full."""
        if self.path is not None:
            save_state(self.path, self.training, step, self.pictures)
            self.kept_at = time.monotonic()
            yield Kept(step)


@dataclass(frozen=True)
class Callbacks:
    """Everything that the recipe asks for between steps, and what is wished for on the way."""

    saving: Saving
    keeping: ResumeSaver
    sampling: Sampling

    def after(self, step: Step, command: Command | None) -> Generator[Event, Command | None, None]:
        """What is due after this step. Every event may be answered with another wish."""
        commands = self._due(step)
        commands += [command] if command and command not in commands else []
        while commands:
            for event in self._fulfil(commands.pop(0), step):
                asked = yield event
                if asked:
                    commands.append(asked)

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
