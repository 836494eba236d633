"""A checkpoint that encodes in no time, recipes for small pictures, and a driver for generators."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lib_trainer.config.recipe import DatasetConfig, Recipe, TrainingConfig
from lib_trainer.events import Event
from lib_trainer.models.base import CheckpointInfo, TextCond
from lib_trainer.models.families import SD1

WORDS_IN_CHUNK = 4


class TinyModel:
    """A `HostModel` as far as the dataset knows one. It counts what it encodes.

    Latents are the average of each 8×8 block, and zeros as fourth channel. A caption has a chunk of 3 rows for every
    4 words; each row holds the words' lengths, so that an empty chunk is a row of ones.
    """

    family = SD1
    device = torch.device("cpu")
    prediction = "epsilon"

    def __init__(self, sha256: str = "abc", vae: str = "", *, pooled: bool = False) -> None:
        self.checkpoint = CheckpointInfo("tiny", sha256, vae)
        self.pictures = 0
        self.batch_shapes: list[tuple[int, ...]] = []
        self.texts: list[str] = []
        self.nan_from = 10**9
        self._pooled = pooled

    def encode_images(self, pixels: Tensor) -> Tensor:
        self.batch_shapes.append(tuple(pixels.shape))
        means = F.avg_pool2d(pixels, 8)
        latents = torch.cat([means, torch.zeros_like(means[:, :1])], dim=1)
        for index in range(len(latents)):
            if self.pictures + index >= self.nan_from:
                latents[index, 0, 0, 0] = float("nan")
        self.pictures += len(pixels)
        return latents

    def encode_text(self, prompts: Sequence[str], clip_skip: int, *, grad: bool = False) -> TextCond:
        self.texts += prompts
        words = [prompt.split() for prompt in prompts]
        chunks = max(1, max(-(-len(row) // WORDS_IN_CHUNK) for row in words))
        context = torch.ones(len(prompts), 3 * chunks, WORDS_IN_CHUNK)
        for row, text in enumerate(words):
            for index, word in enumerate(text):
                chunk, column = divmod(index, WORDS_IN_CHUNK)
                context[row, 3 * chunk : 3 * chunk + 3, column] = 10.0 * len(word) + clip_skip
        return TextCond(context, context[:, 0] * 2 if self._pooled else None)


def make_recipe(folder: Path | str, **values: Any) -> Recipe:
    """A recipe for small pictures; `values` are fields of the dataset and training sections."""
    small = {"train_data_dir": str(folder), "resolution_px": (128, 128), "min_bucket_reso": 64, "epoch": 1, **values}
    return Recipe(dataset=DatasetConfig(), training=TrainingConfig()).with_values(small)


def make_config(folder: Path | str = "", **values: Any) -> DatasetConfig:
    return make_recipe(folder, **values).dataset


def drive(events: Generator[Event, None, Any]) -> tuple[list[Event], Any]:
    """What a generator said, and what it returned."""
    said = []
    while True:
        try:
            said.append(next(events))
        except StopIteration as end:
            return said, end.value
