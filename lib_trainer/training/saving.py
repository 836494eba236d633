"""What a run writes into the LoRA folder: the adapter, its checkpoints, and the WebUI's card of each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from lib_trainer.adapter.attach import Adapter
from lib_trainer.adapter.io import adapter_tensors, copy_adapter, free_path, is_ours, read_metadata, save_adapter
from lib_trainer.adapter.metadata import RECIPE_KEY, TrainedOn, TrainedPicture, evaluation_metadata, file_metadata
from lib_trainer.config.recipe import Recipe
from lib_trainer.config.start import FILE_FIELDS
from lib_trainer.config.task import SLIDER
from lib_trainer.dataset.sampler import Schedule
from lib_trainer.errors import NotWritten
from lib_trainer.events import Evaluated, Event, Notice, Saved, Step
from lib_trainer.lora.card import STRENGTH_KEY, card_path, move_card, new_card, write_card
from lib_trainer.models.base import HostModel
from lib_trainer.training.interval import is_due
from lib_trainer.utils.json_object import json_object


@dataclass
class Saving:
    """Writes the adapter at the end, and a checkpoint as often as the recipe asks for.

    Attributes:
        resuming: an adapter of that name may be an earlier state of this very run.
        saved: every adapter file that was written and still exists.
        cards: path -> content as written; a card that differs by now was edited by a person.
    """

    target: Path
    recipe: Recipe
    model: HostModel
    adapter: Adapter
    schedule: Schedule
    resuming: bool
    saved: list[Path]
    cards: dict[Path, bytes] = field(default_factory=dict)

    def is_due(self, step: Step) -> bool:
        """Whether a checkpoint is due after this step."""
        output = self.recipe.output
        steps, epochs = output.save_every_n_steps, output.save_every_n_epochs
        return is_due(step, self.schedule, every_steps=steps, every_epochs=epochs)

    def save_checkpoint(self, step: Step) -> Iterator[Event]:
        """The adapter after this step; then removes the checkpoints that the recipe keeps no longer."""
        path = self.checkpoint_path(step)
        yield from self._save_beside(path, step.number, step.epoch)
        for old in self._outdated(step):
            if old != path and is_ours(old):
                self._remove(old)

    def save_step(self, number: int, epoch: int) -> Iterator[Event]:
        """A checkpoint under the name of this step, which is never removed."""
        yield from self.save_beside(f"step{number:08d}", number, epoch)

    def save_beside(self, suffix: str, number: int, epoch: int) -> Iterator[Event]:
        """The adapter as it is now as NAME-suffix, which is never removed."""
        yield from self._save_beside(self._named(suffix), number, epoch)

    def save_final(
        self, step: int, epoch: int, *, strength: float | None, evaluated: Evaluated | None
    ) -> Iterator[Event]:
        """The adapter file; if its name cannot be written, under a free name beside it.

        Raises:
            UserError: nothing can be written there, or a number does not fit the save precision.
        """
        try:
            yield from self._keep_previous()
            saved = self.save(self.target, step, epoch, strength=strength, evaluated=evaluated)
        except NotWritten as error:
            # Another program may hold the old file open: what was learned is worth a second name.
            beside = _unused(self.target)
            saved = self.save(beside, step, epoch, strength=strength, evaluated=evaluated)
            yield Notice(f"{error.message} The adapter is saved as {beside.name} instead.")
        yield saved

    def _keep_previous(self) -> Iterator[Event]:
        """Keeps the adapter of an earlier run as NAME-previous, with its card and picture."""
        target = self.target
        if not target.exists() or (self.resuming and self._is_same_run(read_metadata(target))):
            return
        previous = free_path(target.with_name(f"{target.stem}-previous{target.suffix}"))
        copy_adapter(target, previous, previous.stem)
        move_card(target, previous)
        self.saved.append(previous)
        yield Notice(f"{target.name} of an earlier run is kept as {previous.name}.")

    def _is_same_run(self, metadata: dict[str, str]) -> bool:
        """Whether a file has this run's recipe; a resume may extend the run, and the best strength is found anew."""
        found, mine = json_object(metadata.get(RECIPE_KEY, "")), self.recipe.flat()
        names = set(found) - {"max_train_steps", "epoch", "preferred_weight", *FILE_FIELDS}
        # JSON has lists where the recipe has tuples.
        return bool(found) and all(found[name] == json.loads(json.dumps(mine.get(name))) for name in names)

    def _save_beside(self, wanted: Path, number: int, epoch: int) -> Iterator[Event]:
        path = free_path(wanted)
        if path != wanted:
            yield Notice(f"{wanted.name} was made by another program; the checkpoint is called {path.name}.")
        yield self.save(path, number, epoch)

    def checkpoint_path(self, step: Step) -> Path:
        """kohya's names: NAME-000003 after an epoch that is due, NAME-step00000200 after any other step."""
        output = self.recipe.output
        by_steps = is_due(step, self.schedule, every_steps=output.save_every_n_steps, every_epochs=0)
        by_epochs = is_due(step, self.schedule, every_steps=0, every_epochs=output.save_every_n_epochs)
        return self._named(f"{step.epoch:06d}" if by_epochs and not by_steps else f"step{step.number:08d}")

    def _named(self, suffix: str) -> Path:
        return self.target.with_name(f"{self.recipe.output.output_name}-{suffix}{self.target.suffix}")

    def _outdated(self, step: Step) -> list[Path]:
        """Checkpoints beyond kohya's save_last_n_steps and save_last_n_epochs; those saved on demand never are."""
        output = self.recipe.output
        paths = []
        if output.save_every_n_steps and output.save_last_n_steps:
            first_kept = step.number - output.save_last_n_steps
            steps = range(output.save_every_n_steps, first_kept, output.save_every_n_steps)
            paths += [self._named(f"step{number:08d}") for number in steps]
        if output.save_every_n_epochs and output.save_last_n_epochs:
            last = step.epoch - output.save_every_n_epochs * output.save_last_n_epochs
            epochs = range(output.save_every_n_epochs, last + 1, output.save_every_n_epochs)
            paths += [self._named(f"{number:06d}") for number in epochs]
        return [path for path in paths if path.exists()]

    def _remove(self, path: Path) -> None:
        card = card_path(path)
        with suppress(OSError):
            path.unlink()
            # A card that a person has edited stays.
            if card in self.cards and card.read_bytes() == self.cards[card]:
                card.unlink()
        self.saved[:] = [saved for saved in self.saved if saved != path]

    def save(
        self, path: Path, step: int, epoch: int, *, strength: float | None = None, evaluated: Evaluated | None = None
    ) -> Saved:
        """Writes the adapter file and its card.

        Args:
            strength: that the card proposes, even over an older card; the recipe's if None.
            evaluated: the evaluation of these weights.

        Raises:
            UserError: the disk is full, or a value does not fit the save precision; no file has changed.
        """
        name = path.name.removesuffix(path.suffix)
        weight = self.recipe.output.preferred_weight if strength is None else strength
        # A checkpoint says its own name, so that the WebUI's hint for it works.
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
        if self.recipe.task.mode == SLIDER:
            return TrainedOn((), self.schedule.batches_per_epoch)
        scan, buckets = self.schedule.scan, self.schedule.buckets
        pictures = tuple(
            TrainedPicture(
                sample.image.parent.name, sample.caption, sample.repeats, (bucket.width_px, bucket.height_px)
            )
            for index, (sample, bucket) in enumerate(zip(scan.samples, buckets, strict=True))
            if index not in self.schedule.without
        )
        return TrainedOn(pictures, self.schedule.batches_per_epoch, scan.trigger_word)


def _unused(path: Path) -> Path:
    """NAME-2, NAME-3 …: the first that no file has."""
    number = 2
    while (beside := path.with_name(f"{path.stem}-{number}{path.suffix}")).exists():
        number += 1
    return beside
