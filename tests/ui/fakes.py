"""A host that draws nothing much, and runs that a test leads by the hand."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from lib_trainer.config.recipe import Recipe
from lib_trainer.events import (
    Command,
    Event,
    Finished,
    Notice,
    Progress,
    Sampled,
    Saved,
    Started,
    StateSaved,
    Step,
    StopRequested,
)
from lib_trainer.jobs.history import SAMPLE_DIR
from lib_trainer.models.families import SDXL
from lib_trainer.models.placement import MemoryProfile
from tests.fakes.easel import Easel


class FakeHost(Easel):
    """Everything the tab and the jobs ask of a host. `busy` stands for somebody else's Generate."""

    name = "fake"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.cache_dir = folder / "cache" / "train_lora"
        self.settings_file = folder / "train_lora.json"
        self.progress: list[tuple[int, int, str]] = []

    def open_model(self) -> None:
        raise NotImplementedError("the fake runs need no model")

    def show_progress(self, step: int, steps: int, text: str) -> None:
        self.progress.append((step, steps, text))

    def memory_profile(self) -> MemoryProfile | None:
        return MemoryProfile(SDXL, SDXL.shape, 2, available_bytes=round(6.9 * 2**30), total_bytes=8 * 2**30)

    def describe(self) -> str:
        return "Realistic.safetensors · SDXL · fp16 · 6.9 of 8.0 GB free"


class SlowRun:
    """A run whose steps take `seconds`, with a loss that falls as real ones do."""

    def __init__(self, steps: int = 300, seconds: float = 0.1) -> None:
        self.steps, self.seconds = steps, seconds
        # What it was started with, for tests that look at what is trained.
        self.recipes: list[Recipe] = []

    def __call__(self, host: FakeHost, recipe: Recipe, folder: Path | None = None) -> Iterator[Event]:
        self.recipes.append(recipe)
        yield Notice("AdamW8bit does not run on a CPU; AdamW is used instead.")
        for done in range(1, 7):
            time.sleep(self.seconds)
            yield Progress("caching", done, 6, "Encoding the pictures")
        yield Started(0, self.steps, "Realistic.safetensors", "")
        number, early = 0, False
        try:
            for number in range(1, self.steps + 1):
                time.sleep(self.seconds)
                rate = recipe.training.learning_rate * (1 + math.cos(math.pi * number / self.steps)) / 2
                command = yield Step(number, self.steps, 1 + number // 60, fake_loss(number), rate, self.seconds, 2**30)
                while command:
                    command = yield self._fulfil(command, number, recipe, folder)
        except StopRequested as stop:
            if not stop.save:
                return
            early = True
        yield Progress("saving", 0, 1, "Writing the adapter")
        path = host.lora_dir / f"{recipe.output.output_name}.safetensors"
        path.write_bytes(b"adapter")
        yield Saved(path, number)
        tag = f"<lora:{recipe.output.output_name}:{recipe.output.preferred_weight:g}>"
        yield Finished(path, tag, number, stopped_early=early)

    def _fulfil(self, command: Command, number: int, recipe: Recipe, folder: Path) -> Event:
        if command is Command.SAVE_STATE:
            return StateSaved(number)
        path = folder / SAMPLE_DIR / f"step{number:08d}-1.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.linear_gradient("L").resize((64, 64)).rotate(number).save(path)
        return Sampled(path, number, f"{recipe.dataset.trigger_word} as a <superhero>")


def fake_loss(number: int) -> float:
    return 0.08 + 0.06 * math.exp(-number / 80) + 0.03 * abs(math.sin(number * 12.9898) * 43758.5453 % 1)


def draw_pictures(folder: Path, count: int = 8, side_px: int = 800) -> Path:
    """A kohya folder: two of the pictures are small, one lacks its caption."""
    inside = folder / "10_jeff_person"
    inside.mkdir(parents=True)
    for number in range(count):
        side = 400 if number < 2 else side_px
        picture = Image.radial_gradient("L").resize((side, side + 32 * number))
        color = (60 + 20 * number, 90, 220 - 20 * number)
        Image.composite(Image.new("RGB", picture.size, color), Image.new("RGB", picture.size, "white"), picture).save(
            inside / f"{number}.jpg"
        )
        if number:
            (inside / f"{number}.txt").write_text(f"jeff_person, portrait photo {number}", encoding="utf-8")
    return folder
