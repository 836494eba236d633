"""What a run draws, and when: a pure function of its seed."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cached_property

from lib_trainer.config.recipe import Recipe
from lib_trainer.dataset.augment import count_variants
from lib_trainer.dataset.buckets import Bucket, bucket_for
from lib_trainer.dataset.captions import caption_variants
from lib_trainer.dataset.scan import Scan
from lib_trainer.errors import UserError


@dataclass(frozen=True)
class Draw:
    """One picture of a batch.

    Attributes:
        sample: index into `Scan.samples`.
        variant: which encoded version of it.
        caption: its text; "" where the caption was dropped.
    """

    sample: int
    variant: int
    caption: str


class Schedule:
    """What a run draws: a pure function of the scan and the recipe, computed for each epoch on request.

    An epoch draws every sample as often as its folder repeats it, in batches of one bucket each, in random order.
    The last batch of a bucket may be smaller, and so may the last optimizer step of an epoch, which takes
    `gradient_accumulation_steps` batches. A sample's variants and captions do not depend on the other samples.

    Args:
        without: samples that are left out because their pixels cannot be read. Indices remain those of `scan.samples`.

    Attributes:
        buckets: the bucket of each of `scan.samples`.
        batches_per_epoch, steps_per_epoch: the same for all epochs.
        steps, epochs: optimizer steps of the whole run, and the epochs they take; the last may be cut short.

    Raises:
        UserError: no sample is left.
    """

    def __init__(self, scan: Scan, recipe: Recipe, without: frozenset[int] = frozenset()) -> None:
        self.scan, self.recipe, self.without = scan, recipe, without
        config, training = recipe.dataset, recipe.training
        self.buckets = tuple(bucket_for(sample.width_px, sample.height_px, config) for sample in scan.samples)
        counts: dict[Bucket, int] = {}
        for index in self._samples():
            # Whole batches per bucket decide the length of an epoch, so it is the same for all epochs.
            counts[self.buckets[index]] = counts.get(self.buckets[index], 0) + scan.samples[index].repeats
        if not counts:
            raise UserError("There is no picture left to train on.", "Put pictures that can be opened into the folder.")
        # Where the adapter trains at two strengths, each batch comes twice in a row.
        self._times = len(recipe.task.signs)
        self.batches_per_epoch = self._times * sum(-(-n // training.train_batch_size) for n in counts.values())
        self.steps_per_epoch = -(-self.batches_per_epoch // training.gradient_accumulation_steps)
        self.steps = training.max_train_steps or training.epoch * self.steps_per_epoch
        self.epochs = -(-self.steps // self.steps_per_epoch)
        self._picture_variants = count_variants(config)
        # One generator for each sample: leaving one out changes nothing for the others.
        generators = [self._rng("captions", index) for index in range(len(scan.samples))]
        # sample -> caption of its file -> versions of that caption.
        self._captions = tuple(
            tuple(caption_variants(caption, config, rng) for caption in sample.captions)
            for sample, rng in zip(scan.samples, generators, strict=True)
        )

    def leave_out(self, samples: frozenset[int]) -> Schedule:
        """The schedule of the same run without these samples too."""
        return Schedule(self.scan, self.recipe, self.without | samples)

    def epoch(self, number: int) -> list[tuple[Draw, ...]]:
        """The batches of an epoch, in order; `number` counts from 1. All draws of a batch share a bucket."""
        by_bucket: dict[Bucket, list[Draw]] = {}
        for index in self._samples():
            by_bucket.setdefault(self.buckets[index], []).extend(self._draws(number, index))
        rng, size = self._rng("order", number), self.recipe.training.train_batch_size
        batches = []
        # Sorted first, because the shuffles depend on the order that they start from.
        for _, draws in sorted(by_bucket.items()):
            rng.shuffle(draws)
            batches += [tuple(draws[start : start + size]) for start in range(0, len(draws), size)]
        # Buckets must mix within an epoch, or the last shape would weigh most.
        rng.shuffle(batches)
        return [batch for batch in batches for _ in range(self._times)]

    def pictures(self) -> list[tuple[int, int]]:
        """Every (sample, variant) that the run draws, each once, in order."""
        return sorted(self._drawn[0])

    def captions(self) -> list[str]:
        """Every caption that the run draws, each once, in order; with `caption_dropout_rate` also "" ."""
        return sorted(self._drawn[1])

    def _samples(self) -> list[int]:
        return [index for index in range(len(self.scan.samples)) if index not in self.without]

    def _rng(self, purpose: str, number: int) -> random.Random:
        return random.Random(f"{self.recipe.training.seed}/{purpose}/{number}")

    def _draws(self, epoch: int, index: int) -> list[Draw]:
        rng = self._rng(f"epoch {epoch}", index)
        captions, dropout = self._captions[index], self.recipe.dataset.caption_dropout_rate
        draws = []
        for _ in range(self.scan.samples[index].repeats):
            variant = rng.randrange(self._picture_variants)
            # By file line first: a line of one tag has fewer shuffles than a long one, and must not be rarer.
            caption = rng.choice(rng.choice(captions) if len(captions) > 1 else captions[0])
            draws.append(Draw(index, variant, "" if rng.random() < dropout else caption))
        return draws

    @cached_property
    def _drawn(self) -> tuple[set[tuple[int, int]], set[str]]:
        """(sample, variant) of all pictures, and all captions, of the whole run."""
        whole_epochs, steps_left = divmod(self.steps, self.steps_per_epoch)
        draws = [draw for index in self._samples() for draw in self._all_draws(index, whole_epochs)]
        if steps_left:
            batches = self.epoch(whole_epochs + 1)[: steps_left * self.recipe.training.gradient_accumulation_steps]
            draws += [draw for batch in batches for draw in batch]
        # Dropout draws the empty caption sooner or later, even if this loop has not seen it.
        captions = {draw.caption for draw in draws} | ({""} if self.recipe.dataset.caption_dropout_rate else set())
        return {(draw.sample, draw.variant) for draw in draws}, captions

    def _all_draws(self, index: int, epochs: int) -> set[Draw]:
        """The different variants and captions of a sample in this many epochs, though not every combination of both."""
        drawn = self.recipe.dataset.caption_dropout_rate < 1
        captions = {text for versions in self._captions[index] for text in versions} if drawn else set()
        by_variant: dict[int, Draw] = {}
        by_caption: dict[str, Draw] = {}
        for number in range(1, epochs + 1):
            for draw in self._draws(number, index):
                by_variant.setdefault(draw.variant, draw)
                by_caption.setdefault(draw.caption, draw)
            # A long run has drawn every variant and caption long before it ends.
            if len(by_variant) == self._picture_variants and by_caption.keys() >= captions:
                break
        return {*by_variant.values(), *by_caption.values()}
