"""What a run learns from: a folder of pictures, prompts alone, or pairs of pictures in two folders."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from lib_trainer.config.recipe import Recipe
from lib_trainer.config.task import DIFFERENCE, SLIDER
from lib_trainer.dataset.buckets import Bucket
from lib_trainer.dataset.cache import cache_latents
from lib_trainer.dataset.cache_store import LatentStore, TextStore
from lib_trainer.dataset.collate import make_batch
from lib_trainer.dataset.fingerprint import fingerprint
from lib_trainer.dataset.pairs import scan_pairs
from lib_trainer.dataset.sampler import Schedule
from lib_trainer.dataset.samples import Sample
from lib_trainer.dataset.scan import Scan, scan_folder
from lib_trainer.events import Event
from lib_trainer.models.base import HostModel
from lib_trainer.models.families import Family
from lib_trainer.training.denoiser import Denoiser
from lib_trainer.training.difference import DifferenceTargets
from lib_trainer.training.loop import MakeBatch
from lib_trainer.training.micro_batch import Targets
from lib_trainer.training.slider import SliderTargets, slider_prompts

# The draws of a prompt that make an epoch, which for a slider is only a unit of counting.
_DRAWS = 100


@dataclass(frozen=True)
class Source:
    """What is learned from.

    Attributes:
        recipe: as it acts in its mode.
        scan: the pictures; of a slider its prompts, each as a sample without a file.
        targets_scan: the second picture of each pair, by the same indices; None without pairs.
    """

    recipe: Recipe
    scan: Scan
    targets_scan: Scan | None = None

    def fingerprint(self) -> str:
        """Hex; the same for the same pictures and captions. A slider's prompts are settings: "" for them."""
        if self.recipe.task.mode == SLIDER:
            return ""
        if self.targets_scan is None:
            return fingerprint(self.scan)
        return hashlib.sha256((fingerprint(self.scan) + fingerprint(self.targets_scan)).encode()).hexdigest()

    @property
    def prompts(self) -> list[str]:
        """That are encoded besides the captions."""
        return slider_prompts(self.recipe.task.prompts) if self.recipe.task.mode == SLIDER else []

    def cache(
        self, model: HostModel, recipe: Recipe, folder: Path | None, held_out: frozenset[int], also: Sequence[int]
    ) -> Generator[Event, None, Latents]:
        """The latents of everything that the run draws, and of the samples `also`; see `cache_latents`."""
        schedule = Schedule(self.scan, recipe, held_out)
        if recipe.task.mode == SLIDER:
            return Latents(_empty_latents(schedule, model.family))
        if self.targets_scan is None:
            return Latents((yield from cache_latents(schedule, model, folder, also=also)))
        while True:
            first = yield from cache_latents(schedule, model, folder)
            others = Schedule(self.targets_scan, recipe, first.schedule.without)
            second = yield from cache_latents(others, model, folder)
            # A pair of which one picture cannot be read is left out.
            if second.schedule.without == first.schedule.without:
                return Latents(first, second)
            schedule = first.schedule.leave_out(second.schedule.without)

    def targets(self, denoiser: Denoiser) -> Targets | None:
        """What makes the targets of the run; None where they are those of pictures."""
        if self.recipe.task.mode == SLIDER:
            return SliderTargets(denoiser, self.recipe.task.prompts)
        return DifferenceTargets(denoiser) if self.targets_scan else None


@dataclass(frozen=True)
class Latents:
    """Encoded pictures, and the second ones of pairs."""

    store: LatentStore
    others: LatentStore | None = None

    def batches(self, texts: TextStore | None) -> MakeBatch:
        return partial(make_batch, latents=self.store, texts=texts, others=self.others)


def open_source(recipe: Recipe) -> Source:
    """What a checked recipe learns from; looks at files, not at the model.

    Raises:
        UserError: a folder cannot be used.
        ConfigError: pairs are not whole, or differ in size.
    """
    recipe = recipe.for_its_mode()
    if recipe.task.mode == SLIDER:
        recipe = recipe.with_values({"enable_bucket": False})
        return Source(recipe, _prompt_scan(recipe))
    scan = scan_folder(recipe.dataset)
    recipe = replace(recipe, dataset=replace(recipe.dataset, trigger_word=scan.trigger_word))
    if recipe.task.mode != DIFFERENCE:
        return Source(recipe, scan)
    others = scan_pairs(scan, recipe.dataset, recipe.task.diff_target_dir)
    return Source(recipe, replace(scan, skipped=(*scan.skipped, *others.skipped)), others)


def _prompt_scan(recipe: Recipe) -> Scan:
    width_px, height_px = recipe.dataset.resolution_px
    samples = [
        Sample(Path(f"prompt {number}"), line.neutral, _DRAWS, width_px, height_px, captioned=True)
        for number, line in enumerate(recipe.task.prompts, start=1)
    ]
    return Scan(tuple(samples), (), "")


def _empty_latents(schedule: Schedule, family: Family) -> LatentStore:
    """Zeros in place of pictures: they only say how large the noise is."""

    def entry(bucket: Bucket) -> dict[str, torch.Tensor]:
        height, width = bucket.height_px, bucket.width_px
        cells = height // family.latent_px, width // family.latent_px
        size = torch.tensor([height, width, 0, 0, height, width], dtype=torch.float32)
        return {"latents": torch.zeros(family.shape.latent_channels, *cells), "size": size}

    return LatentStore(schedule, {picture: entry(schedule.buckets[picture[0]]) for picture in schedule.pictures()})
