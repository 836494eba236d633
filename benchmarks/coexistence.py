"""A face and a style in one prompt: the face trained alone, and over the style that it will be drawn in."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from statistics import mean
from typing import Any

import torch

from benchmarks.report import say, table
from lib_trainer.config.recipe import Recipe
from lib_trainer.demo import datasets
from lib_trainer.demo.canvas import Canvas
from lib_trainer.demo.evaluate import denoising_loss, prepare_exam
from lib_trainer.demo.faces import draw_face
from lib_trainer.demo.recipes import DEMO_RUNS
from lib_trainer.demo.world import Drawing
from lib_trainer.events import Finished
from lib_trainer.host.standalone.host import StandaloneHost
from lib_trainer.host.standalone.merge_lora import merged_loras
from lib_trainer.models.placement import RESIDENT
from lib_trainer.run import run

FACE, STYLE = DEMO_RUNS["face"], DEMO_RUNS["style"]
WAYS: dict[str, dict[str, Any]] = {"alone": {}, "over the style": {"base_weights": STYLE.name}}


def both_shown() -> list[Drawing]:
    """The character in the style, which neither folder holds, under a caption with both words."""
    rng, drawings = Random("both"), []
    for expression, gaze, _ in datasets.HELD_OUT_FACE_SCENES:
        canvas = Canvas(datasets.SIZE_PX, datasets.PAPER, datasets.STYLE_PEN)
        centre = (0.5 + rng.uniform(-0.05, 0.05), 0.55 + rng.uniform(-0.02, 0.05))
        canvas.place(centre, rng.uniform(0.38, 0.45), rng.uniform(-8, 8))
        draw_face(canvas, replace(datasets.JEFF, expression=expression or datasets.JEFF.expression, gaze=gaze))
        told = f"{expression}, " if expression else ""
        caption = f"{FACE.name}, {told}looking {gaze}, painted in {STYLE.name} style"
        drawings.append(Drawing(canvas.picture(), caption))
    return drawings


def measure_pair(seed: int, face_steps: int, style_steps: int) -> dict[tuple[str, float], list[float]]:
    """(way, strength of both) -> losses of `both_shown`, and of the held-out pictures of the face and of the style.

    A way is that of the face; at strength 0 the model is alone.
    """
    with tempfile.TemporaryDirectory() as place:
        host = StandaloneHost(Path(place))
        changes = {"seed": seed, "save_precision": "fp32", "validate_every_n_steps": 0}
        style = train(
            host, STYLE.recipe(STYLE.draw(Path(place) / "style")), {**changes, "max_train_steps": style_steps}
        )
        data = FACE.draw(Path(place) / "face")
        faces = {
            way: train(
                host,
                FACE.recipe(data),
                {**changes, **settings, "max_train_steps": face_steps, "output_name": f"face{at}"},
            )
            for at, (way, settings) in enumerate(WAYS.items())
        }
        with host.open_model() as model:
            layers = [*model.adaptable_layers(), *model.text_layers()]
            exams = [prepare_exam(model, each) for each in (both_shown(), FACE.heldout(), STYLE.heldout())]
            model.prepare_training(RESIDENT, text_encoder=True)
            found = {}
            for way, face in faces.items():
                for strength in (0.0, 0.8, 1.0):
                    files = [(style, strength), (face, strength)] if strength else []
                    with merged_loras(layers, files), torch.no_grad():
                        found[way, strength] = [denoising_loss(model, exam, 1) for exam in exams]
    return found


def train(host: StandaloneHost, recipe: Recipe, changes: dict[str, Any]) -> Path:
    """The file of a run of the recipe with these changes."""
    return next(event.path for event in run(host, recipe.with_values(changes)) if isinstance(event, Finished))


def report_pairs(seeds: Sequence[int], face_steps: int, style_steps: int) -> None:
    """Prints Markdown: a row for each seed, way and strength as each seed ends, and then their means."""
    say(f"\nface {face_steps} steps, style {style_steps} steps; both LoRAs at one strength\n")
    say(table(["", "the face was trained", "strength", "both in one picture", "the face", "the style"], []))
    found = {}
    for seed in seeds:
        found[seed] = measure_pair(seed, face_steps, style_steps)
        for (way, strength), losses in found[seed].items():
            say(_row(f"seed {seed}", way, strength, losses))
    for key in found[seeds[0]]:
        means = [mean(losses) for losses in zip(*(each[key] for each in found.values()), strict=True)]
        say(_row("mean", *key, means))


def _row(name: str, way: str, strength: float, losses: Sequence[float]) -> str:
    return f"| {' | '.join([name, way, f'{strength:g}', *(f'{loss:.4f}' for loss in losses)])} |"
