"""Draws the pictures of the study: many prompts in one batch, which takes half the time of one after another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from lib_trainer.demo import datasets
from lib_trainer.host.base import GenerateRequest
from lib_trainer.host.standalone.host import StandaloneHost
from lib_trainer.host.standalone.merge_lora import merged_loras
from lib_trainer.host.standalone.model import StandaloneModel
from lib_trainer.host.standalone.txt2img import draw

# Seeds follow each other: picture i of a prompt is that of FIRST_SEED + i.
FIRST_SEED, SEEDS = 11, 3
_STEPS, _CFG = 12, 1.5


@dataclass(frozen=True)
class Easel:
    """An open model that draws with one file after another."""

    model: StandaloneModel

    def draw(
        self, prompts: Sequence[str], each: int, file: Path | None = None, strength: float = 1.0
    ) -> list[list[Image.Image]]:
        """`each` pictures of every prompt, with the adapter in `file`."""
        side = datasets.SIZE_PX
        request = GenerateRequest(
            "", width_px=side, height_px=side, steps=_STEPS, cfg_scale=_CFG, seed=FIRST_SEED, batch_size=each
        )
        layers = [*self.model.adaptable_layers(), *self.model.norm_layers(), *self.model.text_layers()]
        with merged_loras(layers, [(file, strength)] if file else []):
            pictures = draw(self.model, prompts, request)
        return [pictures[start : start + each] for start in range(0, len(pictures), each)]


@contextmanager
def open_easel(host: StandaloneHost) -> Iterator[Easel]:
    """The host's model, to draw with."""
    with host.open_model() as model:
        yield Easel(model)
