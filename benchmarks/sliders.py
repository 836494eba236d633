"""Sliders and a difference on the embedded model: what each strength draws, measured by pixels."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.learning.cells import UNRELATED
from benchmarks.learning.detector import border_of, kept, pixels_of, share_of
from benchmarks.learning.drawing import SEEDS, open_easel
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
    **EMBEDDED_SIZES, "learning_rate": 1e-3, "lr_scheduler": "cosine", "mixed_precision": "fp32",
    "gradient_checkpointing": False, "cache_latents_to_disk": False, "save_precision": "fp32", "output_name": "x",
    "seed": 0,
}  # fmt: skip
_THINGS = ("circle", "car", "cup", "house")
_SLIDER = {"lycoris_preset": "attn-mlp", "max_denoising_steps": 10, "train_batch_size": 2, "max_train_steps": 100}
_PAIRS = 4
# Largest distance in RGB at which a pixel has the background's colour.
_NEAR = 70.0


def _lines(text: str) -> str:
    return "\n".join(text.format(thing) for thing in _THINGS)


def area(picture: Image.Image) -> float:
    """Share of the pixels that are not of the background's colour."""
    return float(_figure(pixels_of(picture)).mean())


def blueness(picture: Image.Image) -> float:
    """How much blue exceeds red in the figure, −1 to 1."""
    pixels = pixels_of(picture)
    figure = _figure(pixels)
    return float((pixels[figure][:, 2] - pixels[figure][:, 0]).mean() / 255) if figure.any() else 0.0


def red_share(picture: Image.Image) -> float:
    """Share of the pixels that are red, as the glasses of the pairs."""
    return share_of(pixels_of(picture), COLOURS["red"])


def _figure(pixels: np.ndarray) -> np.ndarray:
    background = np.median(border_of(pixels)[0], axis=0)
    return np.linalg.norm(pixels - background, axis=-1) >= _NEAR


@dataclass(frozen=True)
class Case:
    """One run: a shipped recipe with `values`, and what `look` sees of `prompts`.

    Attributes:
        others: prompts that should stay.
    """

    name: str
    preset: str
    values: dict[str, Any]
    prompts: tuple[str, ...]
    look: Callable[[Image.Image], float]
    others: tuple[str, ...] = UNRELATED


# The embedded model's world says of things that they are small, and of nothing that it is large.
_SIZE = {
    **_SLIDER, "original_prompt": _lines("a small red {}"), "target_prompt": _lines("a red {}"),
    "neutral_prompt": _lines("a red {}"),
}  # fmt: skip
# Two things of the slider's and two that it never saw, in other colours and before backgrounds that it never saw.
_SIZED = (
    "a red circle on a white background",
    "a blue car on a yellow background",
    "a red star on a gray background",
    "a green cat on a white background",
)
CASES = (
    Case(
        "colour", "slider_config_8gb",
        {
            **_SLIDER, "original_prompt": _lines("a red {}"), "target_prompt": _lines("a blue {}"),
            "neutral_prompt": _lines("a {}"),
        },
        (
            "a circle on a white background",
            "a car on a yellow background",
            "a star on a gray background",
            "a cat on a white background",
        ),
        blueness,
    ),
    Case("size", "slider_config_8gb", _SIZE, _SIZED, area),
    Case(
        "size, others preserved", "slider_config_8gb",
        {**_SIZE, "max_train_steps": 80, "prior_preservation": True, "prior_preservation_every_n_steps": 2},
        _SIZED, area,
    ),
    Case(
        "glasses", "difference_config_8gb", {"min_timestep": 300, "train_batch_size": 4, "max_train_steps": 60},
        (
            "a portrait of a person with short brown hair, smiling on a white background",
            "a person with long black hair, wearing a green shirt on a gray background",
            "a portrait of a person wearing red glasses on a white background",
            "a person with short black hair, wearing red glasses on a yellow background",
        ),
        red_share,
        (
            "a red circle on a blue background",
            "a green tree on a white background",
            "a blue car on a yellow background",
            "a gray cat on a pink background",
        ),
    ),
)  # fmt: skip


def draw_pairs(folder: Path) -> dict[str, str]:
    """Writes the same portraits without glasses and with red ones; the settings that name their folders.

    The captions say nothing of glasses.
    """
    folders = folder / "first", folder / "second"
    for number in range(_PAIRS):
        rng = Random(f"pair {number}")
        hair, shirt = rng.choice(("black", "brown", "yellow", "gray")), rng.choice(("green", "gray", "white", "purple"))
        skin, background = rng.choice(list(SKINS)), ("white", "gray", "green", "yellow")[number % 4]
        centre = (0.5 + rng.uniform(-0.05, 0.05), 0.54 + rng.uniform(-0.03, 0.05))
        scale, angle = rng.uniform(0.38, 0.45), rng.uniform(-6, 6)
        caption = f"a portrait of a person with short {hair} hair, {skin} skin, wearing a {shirt} shirt"
        for place, glasses in zip(folders, (None, COLOURS["red"]), strict=True):
            canvas = Canvas(SIZE_PX, COLOURS[background])
            canvas.place(centre, scale, angle)
            draw_face(canvas, Face(SKINS[skin], COLOURS[hair], COLOURS[shirt], glasses=glasses))
            place.mkdir(parents=True, exist_ok=True)
            canvas.picture().save(place / f"{number}.png")
            (place / f"{number}.txt").write_text(f"{caption} on a {background} background")
    return {"train_data_dir": str(folders[0]), "diff_target_dir": str(folders[1])}


def measure(case: Case, strengths: Sequence[float]) -> None:
    """Trains one case, and prints a row a strength."""
    with tempfile.TemporaryDirectory() as place:
        host = StandaloneHost(Path(place))
        data = draw_pairs(Path(place)) if case.preset.startswith("difference") else {}
        loaded = load_recipe(PRESET_DIR / f"{case.preset}.json").recipe
        events = list(run(host, loaded.with_values({**_SMALL, **case.values, **data})))
        steps = [event for event in events if isinstance(event, Step)]
        path = next(event.path for event in events if isinstance(event, Finished))
        rows = []
        with open_easel(host) as easel:
            base = [group[0] for group in easel.draw(case.others, 1)]
            for strength in strengths:
                groups = easel.draw(case.prompts, SEEDS, path, strength)
                seen = [np.mean([case.look(picture) for picture in group]) for group in groups]
                stay = kept([group[0] for group in easel.draw(case.others, 1, path, strength)], base)
                rows.append([f"{strength:g}", *(f"{value:.3f}" for value in seen), f"{stay:.2f}"])
    first, last = (np.mean([step.loss for step in part]) for part in (steps[:10], steps[-10:]))
    seconds = sum(step.seconds for step in steps)
    say(f"\n{case.name}: {len(steps)} steps in {seconds:.0f} s, loss {first:.4f} to {last:.4f}\n")
    say(table(["strength", *case.prompts, "others kept"], rows))


def report_sliders(names: Sequence[str], strengths: Sequence[float]) -> None:
    """Prints Markdown, a table a case."""
    for case in CASES:
        if not names or case.name in names:
            measure(case, strengths)
