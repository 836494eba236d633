"""What a run leaves in the LoRA folder: the adapter, copies of it on the way, and the WebUI's card."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lib_trainer.adapter.attach import Adapter
from lib_trainer.adapter.files import adapter_tensors, save_adapter
from lib_trainer.adapter.metadata import TrainedOn, TrainedPicture, card, file_metadata
from lib_trainer.config import Recipe
from lib_trainer.dataset.schedule import Schedule
from lib_trainer.disk import write_whole
from lib_trainer.events import Saved, Step
from lib_trainer.host.base import HostModel

# What the run knows better than whoever edited the card; everything else on it is theirs.
_OURS = ("activation text", "sd version")


@dataclass
class Saving:
    """Writes the adapter: at the end, and as often on the way as the recipe asks for.

    Attributes:
        saved: every adapter file that was written.
    """

    target: Path
    recipe: Recipe
    model: HostModel
    adapter: Adapter
    schedule: Schedule
    saved: list[Path]

    def is_due(self, step: Step) -> bool:
        """Whether a copy is kept after this step. The last step is the final file's."""
        if step.number == step.total:
            return False
        by_steps, by_epochs = self.recipe.output.save_every_n_steps, self.recipe.output.save_every_n_epochs
        ends_epoch = step.number % self.schedule.steps_per_epoch == 0
        due_by_epoch = bool(by_epochs) and ends_epoch and step.epoch % by_epochs == 0
        return due_by_epoch or (bool(by_steps) and step.number % by_steps == 0)

    def stage_path(self, step: Step) -> Path:
        """kohya's names: NAME-000003 after an epoch, NAME-step00000200 after a number of steps."""
        by_steps = self.recipe.output.save_every_n_steps
        stage = f"step{step.number:08d}" if by_steps and step.number % by_steps == 0 else f"{step.epoch:06d}"
        return self.target.with_name(f"{self.recipe.output.output_name}-{stage}{self.target.suffix}")

    def save(self, path: Path, step: int, epoch: int) -> Saved:
        """The adapter file, and beside it what the WebUI shows on its card.

        Raises:
            UserError: the disk is full, or a number does not fit the save precision; no file has changed.
        """
        name = path.name.removesuffix(path.suffix)
        recipe = replace(self.recipe, output=replace(self.recipe.output, output_name=name))
        tensors = adapter_tensors(self.adapter, recipe.output.save_precision)
        family, checkpoint, trained_on = self.model.family, self.model.checkpoint, self._trained_on()
        metadata = file_metadata(
            recipe, family, checkpoint, trained_on, prediction=self.model.prediction, steps=step, epoch=epoch
        )
        save_adapter(path, tensors, metadata)
        self.saved.append(path)
        _write_card(path.with_name(f"{name}.json"), card(recipe, family, checkpoint, trained_on, steps=step))
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


def _write_card(path: Path, made: dict[str, Any]) -> None:
    """Writes the card; what a person has written on an older one stays."""
    theirs: dict[str, Any] = {}
    with suppress(OSError, ValueError):
        read = json.loads(path.read_text("utf-8"))
        theirs = read if isinstance(read, dict) else {}
    content = {**made, **theirs, **{key: made[key] for key in _OURS if key in made}}
    write_whole(path, json.dumps(content, indent=2, ensure_ascii=False).encode())
