"""A slider and a difference on the embedded model: what each strength draws, measured by pixels."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.learning.detector import border_of, kept, pixels_of
from benchmarks.learning.drawing import open_easel
from benchmarks.report import say, table
from lib_trainer.demo.canvas import Canvas
from lib_trainer.demo.datasets import SIZE_PX
from lib_trainer.demo.faces import Face, draw_face
from lib_trainer.demo.recipes import EMBEDDED_SIZES
from lib_trainer.demo.world import COLOURS, SKINS
from lib_trainer.events import Finished, Step
from lib_trainer.host.standalone.host import StandaloneHost
from lib_trainer.recipes.files import PRESET_DIR, load_recipe
from lib_trainer.run import run

# What the embedded model needs instead of the shipped recipes' values.
_SMALL: dict[str, Any] = {
    **EMBEDDED_SIZES, "learning_rate": 1e-3, "mixed_precision": "fp32", "gradient_checkpointing": False,
    "cache_latents_to_disk": False, "save_precision": "fp32", "output_name": "x",
}  # fmt: skip
# Its world says of things that they are small, and of nothing that it is large.
_THINGS = ("circle", "car", "cup", "house")
SLIDER: dict[str, Any] = {
    "original_prompt": "\n".join(f"a small red {thing}" for thing in _THINGS),
    "target_prompt": "\n".join(f"a red {thing}" for thing in _THINGS),
    "neutral_prompt": "\n".join(f"a red {thing}" for thing in _THINGS),
    "max_denoising_steps": 6, "train_batch_size": 2, "max_train_steps": 60,
}  # fmt: skip
DIFFERENCE: dict[str, Any] = {"min_timestep": 200, "train_batch_size": 4, "max_train_steps": 60}
PAIRS = 4
# Two things of the slider's, and two that it never saw, in other colours and before other backgrounds.
SIZED = (
    "a red circle on a white background",
    "a blue car on a yellow background",
    "a red star on a gray background",
    "a green cat on a white background",
)
FACES = (
    "a portrait of a person with short brown hair, smiling on a white background",
    "a person with long black hair, wearing a green shirt on a gray background",
    "a portrait of a person wearing red glasses on a white background",
    "a person with short black hair, wearing red glasses on a yellow background",
)
STRENGTHS = (-1.0, -0.5, 0.0, 0.5, 1.0)
_SEEDS = 2
# The eyes of a portrait in the middle of the picture, in px: rows and columns.
_EYES = slice(20, 38), slice(20, 44)
_NEAR = 70.0


def area(picture: Image.Image) -> float:
    """Share of the pixels that are not of the background's colour."""
    pixels = pixels_of(picture)
    background = np.median(border_of(pixels)[0], axis=0)
    return float((np.linalg.norm(pixels - background, axis=-1) >= _NEAR).mean())


def redness(picture: Image.Image) -> float:
    """How much red exceeds green and blue around the eyes, −1 to 1."""
    eyes = pixels_of(picture)[_EYES]
    return float((eyes[..., 0] - eyes[..., 1:].mean(-1)).mean() / 255)


def draw_pairs(folder: Path) -> tuple[Path, Path]:
    """Two folders of the same portraits: without glasses and with red ones. The captions say nothing of glasses."""
    folders = folder / "without", folder / "with"
    for number in range(PAIRS):
        rng = Random(f"pair {number}")
        hair, shirt = rng.choice(("black", "brown", "yellow", "gray")), rng.choice(("green", "gray", "white", "purple"))
        skin, background = rng.choice(list(SKINS)), ("white", "gray", "green", "yellow")[number % 4]
        spot = (0.5 + rng.uniform(-0.05, 0.05), 0.54 + rng.uniform(-0.03, 0.05)), rng.uniform(0.38, 0.45)
        for place, glasses in zip(folders, (None, COLOURS["red"]), strict=True):
            canvas = Canvas(SIZE_PX, COLOURS[background])
            canvas.place(*spot)
            draw_face(canvas, Face(SKINS[skin], COLOURS[hair], COLOURS[shirt], glasses=glasses))
            place.mkdir(parents=True, exist_ok=True)
            canvas.picture().save(place / f"{number}.png")
            text = (
                f"a portrait of a person with short {hair} hair, wearing a {shirt} shirt on a {background} background"
            )
            (place / f"{number}.txt").write_text(text)
    return folders


def measure(
    preset: str,
    values: dict[str, Any],
    prompts: Sequence[str],
    look: Callable[[Image.Image], float],
    others: Sequence[str],
) -> None:
    """Trains one recipe, and prints what `look` sees at each strength; `others` are prompts that should stay."""
    with tempfile.TemporaryDirectory() as place:
        host = StandaloneHost(Path(place))
        if preset.startswith("difference"):
            without, with_glasses = draw_pairs(Path(place))
            values = {**values, "train_data_dir": str(without), "diff_target_dir": str(with_glasses)}
        recipe = load_recipe(PRESET_DIR / f"{preset}.json").recipe.with_values({**_SMALL, **values})
        events = list(run(host, recipe))
        losses = [event.loss for event in events if isinstance(event, Step)]
        seconds = sum(event.seconds for event in events if isinstance(event, Step))
        path = next(event.path for event in events if isinstance(event, Finished))
        rows = []
        with open_easel(host) as easel:
            base = [group[0] for group in easel.draw(others, 1)]
            for strength in STRENGTHS:
                seen = [np.mean([look(p) for p in group]) for group in easel.draw(prompts, _SEEDS, path, strength)]
                stay = kept([group[0] for group in easel.draw(others, 1, path, strength)], base)
                rows.append([f"{strength:g}", *(f"{value:.3f}" for value in seen), f"{stay:.2f}"])
    first, last = np.mean(losses[:10]), np.mean(losses[-10:])
    say(f"\n{preset}: {len(losses)} steps in {seconds:.0f} s, loss {first:.4f} to {last:.4f}\n")
    say(table(["strength", *prompts, "others kept"], rows))


def report_sliders(kinds: Sequence[str]) -> None:
    """Prints Markdown, a table a recipe."""
    if "slider" in kinds:
        measure("slider_config_8gb", SLIDER, SIZED, area, FACES)
    if "difference" in kinds:
        measure("difference_config_8gb", DIFFERENCE, FACES, redness, SIZED)
