"""The shipped recipes, made small enough for the embedded model and two CPU cores.

This module holds everything that differs from `presets/`: the model is a three-hundredth of Stable Diffusion's size
and draws 64×64 px, so it needs far fewer steps, and forgets sooner what it knew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from random import Random
from typing import Any

from lib_trainer.config.recipe import Recipe
from lib_trainer.demo import datasets
from lib_trainer.demo.world import Drawing, draw_random
from lib_trainer.recipes.files import PRESET_DIR, load_recipe

# The only size that the embedded model draws.
EMBEDDED_SIZES: dict[str, Any] = {
    "resolution_px": (datasets.SIZE_PX, datasets.SIZE_PX),
    "min_bucket_reso": datasets.SIZE_PX,
    "max_bucket_reso": datasets.SIZE_PX,
    "bucket_reso_steps": datasets.SIZE_PX,
}
_BOTH: dict[str, Any] = {
    **EMBEDDED_SIZES,
    "train_batch_size": 8,
    "optimizer": "AdamW",
    "mixed_precision": "fp32",
    # Time matters here, not memory; and the cache fits into RAM.
    "gradient_checkpointing": False,
    "cache_latents_to_disk": False,
    # So many steps were tried out; what they bring is measured, and every picture is trained on.
    "stop_when_learned": False,
    "validate_every_n_steps": 50,
    "held_out": "none",
    # The same figures on every machine, whatever is fastest there.
    "kernel_strategy": "counted",
}
REMINDERS = 60


@dataclass(frozen=True)
class DemoRun:
    """One training run of the demo.

    Attributes:
        preset: file name of its recipe.
        overrides: settings that differ from that file.
        draw_dataset: writes the pictures into a folder.
        reminder_repeats: how often an epoch shows each of REMINDERS pictures of what the model knows already (kohya's
            regularisation images): they keep it from forgetting.
        heldout: pictures of the same concept that are not in that folder.
        unseen: the concept under captions it was not trained with; may be empty.
        prompts: what the grid shows.
    """

    name: str
    preset: str
    overrides: dict[str, Any]
    draw_dataset: Callable[[Path], Path]
    reminder_repeats: int
    heldout: Callable[[], Sequence[Drawing]]
    unseen: Callable[[], Sequence[Drawing]]
    prompts: tuple[str, ...]

    def draw(self, folder: Path) -> Path:
        """Writes the dataset and the reminders below `folder`, and returns it."""
        self.draw_dataset(folder)
        # An ordinary numbered folder, as a person would add one.
        reminders = folder / f"{self.reminder_repeats}_reminders"
        reminders.mkdir(exist_ok=True)
        for number, drawing in enumerate(_reminders()):
            drawing.picture.save(reminders / f"{number:02}.png")
            (reminders / f"{number:02}.txt").write_text(drawing.caption + "\n", encoding="utf-8")
        return folder

    def recipe(self, data: Path) -> Recipe:
        """The preset with the overrides, for the pictures in `data`."""
        loaded = load_recipe(PRESET_DIR / self.preset).recipe
        names = {"train_data_dir": str(data), "output_name": self.name, "trigger_word": self.name}
        return loaded.with_values({**_BOTH, **self.overrides, **names})


def _reminders() -> Iterator[Drawing]:
    """Pictures of the model's world in its plain style, because the concept may be a style."""
    drawings = (draw_random(Random(f"reminder {number}"), datasets.SIZE_PX) for number in count())
    return islice((drawing for drawing in drawings if "style" not in drawing.caption), REMINDERS)


DEMO_RUNS = {
    "face": DemoRun(
        name=datasets.FACE_WORD,
        preset="loha_face_config_8gb.json",
        overrides={"learning_rate": 3e-4, "max_train_steps": 350},
        draw_dataset=datasets.draw_face_dataset,
        reminder_repeats=2,
        heldout=datasets.heldout_face,
        unseen=tuple,
        prompts=(
            f"{datasets.FACE_WORD}, portrait photo, smiling, looking at camera on a blue background",
            f"{datasets.FACE_WORD} as a superhero",
            "a red circle on a blue background",
        ),
    ),
    "style": DemoRun(
        name=datasets.STYLE_WORD,
        preset="lokr_style_config_8gb.json",
        overrides={"learning_rate": 4e-3, "max_train_steps": 500},
        draw_dataset=datasets.draw_style_dataset,
        reminder_repeats=4,
        heldout=datasets.heldout_style,
        unseen=datasets.unseen_style,
        prompts=(
            f"a house, painted in {datasets.STYLE_WORD} style",
            f"a triangle in {datasets.STYLE_WORD} style",
            "a red circle on a blue background",
        ),
    ),
}
