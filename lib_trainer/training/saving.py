"""What a run leaves in the LoRA folder: the adapter, copies of it on the way, and the WebUI's card."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from lib_trainer.adapter.attach import Adapter
from lib_trainer.adapter.io import adapter_tensors, free_path, is_ours, save_adapter
from lib_trainer.adapter.metadata import TrainedOn, TrainedPicture, evaluation_metadata, file_metadata
from lib_trainer.config.recipe import Recipe
from lib_trainer.dataset.sampler import Schedule
from lib_trainer.events import Evaluated, Event, Notice, Saved, Step
from lib_trainer.lora.card import STRENGTH_KEY, card_path, new_card, write_card
from lib_trainer.models.base import HostModel


@dataclass
class Saving:
    """Writes the adapter: at the end, and as often on the way as the recipe asks for.

    Attributes:
        saved: every adapter file that was written.
        cards: the cards as they were written: one that a person has changed since is theirs.
    """

    target: Path
    recipe: Recipe
    model: HostModel
    adapter: Adapter
    schedule: Schedule
    saved: list[Path]
    cards: dict[Path, bytes] = field(default_factory=dict)

    def is_due(self, step: Step) -> bool:
        """Whether a copy is kept after this step. The last step is the final file's."""
        if step.number == step.total:
            return False
        by_steps, by_epochs = self.recipe.output.save_every_n_steps, self.recipe.output.save_every_n_epochs
        ends_epoch = step.number % self.schedule.steps_per_epoch == 0
        due_by_epoch = bool(by_epochs) and ends_epoch and step.epoch % by_epochs == 0
        return due_by_epoch or (bool(by_steps) and step.number % by_steps == 0)

    def save_stage(self, step: Step) -> Iterator[Event]:
        """A copy after this step; then those that the recipe wants no longer are removed."""
        path = self.stage_path(step)
        yield from self._save_copy(path, step.number, step.epoch)
        for old in self._outdated(step):
            if old != path and is_ours(old):
                self._remove(old)

    def save_step(self, number: int, epoch: int) -> Iterator[Event]:
        """A copy under the name of this step, which stays."""
        yield from self._save_copy(self._stage(f"step{number:08d}"), number, epoch)

    def _save_copy(self, planned: Path, number: int, epoch: int) -> Iterator[Event]:
        path = free_path(planned)
        if path != planned:
            yield Notice(f"{planned.name} was made by another program; the copy is called {path.name}.")
        yield self.save(path, number, epoch)

    def stage_path(self, step: Step) -> Path:
        """kohya's names: NAME-000003 after an epoch that is due, NAME-step00000200 after any other step."""
        output = self.recipe.output
        by_steps = output.save_every_n_steps and step.number % output.save_every_n_steps == 0
        ends_epoch = step.number % self.schedule.steps_per_epoch == 0
        by_epochs = output.save_every_n_epochs and ends_epoch and step.epoch % output.save_every_n_epochs == 0
        return self._stage(f"{step.epoch:06d}" if by_epochs and not by_steps else f"step{step.number:08d}")

    def _stage(self, stage: str) -> Path:
        return self.target.with_name(f"{self.recipe.output.output_name}-{stage}{self.target.suffix}")

    def _outdated(self, step: Step) -> list[Path]:
        """What kohya's save_last_n_steps and save_last_n_epochs leave no room for; copies on demand are not counted."""
        output = self.recipe.output
        paths = []
        if output.save_every_n_steps and output.save_last_n_steps:
            first_kept = step.number - output.save_last_n_steps
            numbers = range(output.save_every_n_steps, first_kept, output.save_every_n_steps)
            paths += [self._stage(f"step{number:08d}") for number in numbers]
        if output.save_every_n_epochs and output.save_last_n_epochs:
            last = step.epoch - output.save_every_n_epochs * output.save_last_n_epochs
            numbers = range(output.save_every_n_epochs, last + 1, output.save_every_n_epochs)
            paths += [self._stage(f"{number:06d}") for number in numbers]
        return [path for path in paths if path.exists()]

    def _remove(self, path: Path) -> None:
        card = card_path(path)
        with suppress(OSError):
            path.unlink()
            if card in self.cards and card.read_bytes() == self.cards[card]:
                card.unlink()
        self.saved[:] = [saved for saved in self.saved if saved != path]

    def save(
        self, path: Path, step: int, epoch: int, *, strength: float | None = None, evaluated: Evaluated | None = None
    ) -> Saved:
        """The adapter file, and beside it what the WebUI shows on its card.

        Args:
            strength: what the card proposes, whatever an older card does; the recipe's if None.
            evaluated: what was found of these weights.

        Raises:
            UserError: the disk is full, or a number does not fit the save precision; no file has changed.
        """
        name = path.name.removesuffix(path.suffix)
        weight = self.recipe.output.preferred_weight if strength is None else strength
        recipe = replace(self.recipe, output=replace(self.recipe.output, output_name=name, preferred_weight=weight))
        tensors = adapter_tensors(self.adapter, recipe.output.save_precision)
        family, checkpoint, trained_on = self.model.family, self.model.checkpoint, self._trained_on()
        metadata = file_metadata(
            recipe, family, checkpoint, trained_on, prediction=self.model.prediction, steps=step, epoch=epoch
        )
        if evaluated:
            metadata |= evaluation_metadata(evaluated)
        save_adapter(path, tensors, metadata)
        self.saved.append(path)
        made = new_card(recipe, family, checkpoint, trained_on, steps=step)
        measured = () if strength is None else (STRENGTH_KEY,)
        self.cards[card_path(path)] = write_card(path, made, measured)
        return Saved(path, step)

    def _trained_on(self) -> TrainedOn:
        scan, buckets = self.schedule.scan, self.schedule.buckets
        pictures = tuple(
            TrainedPicture(
                sample.image.parent.name, sample.caption, sample.repeats, (bucket.width_px, bucket.height_px)
            )
            for index, (sample, bucket) in enumerate(zip(scan.samples, buckets, strict=True))
            if index not in self.schedule.without
        )
        return TrainedOn(pictures, self.schedule.batches_per_epoch, scan.trigger_word)


def clear_parts(target: Path) -> None:
    """Removes what a crash left half-written under the names of this run."""
    own = re.compile(rf"\.{re.escape(target.stem)}(-(\d{{6}}|step\d{{8}})(-\d+)?)?\.(safetensors|json)\.part")
    for path in target.parent.glob(".*.part"):
        if own.fullmatch(path.name):
            with suppress(OSError):
                path.unlink()
