"""Trains the embedded model well and badly, and draws with every step × strength of each run."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.learning.cells import score_cells
from benchmarks.learning.drawing import open_easel
from lib_trainer.config.recipe import Recipe
from lib_trainer.demo.recipes import DEMO_RUNS
from lib_trainer.events import Evaluated, Step
from lib_trainer.host.standalone.host import StandaloneHost
from lib_trainer.run import run

KINDS = ("good", "fast", "few", "untold", "bare")
# Nothing that is to be learned is drawn then: such runs show the verdict alone.
UNDRAWN = ("untold",)
STEPS, LONG_STEPS, EVERY = 320, 960, 64
STRENGTHS, LONG_STRENGTHS = (1.0, 0.9, 0.8, 0.6), (1.0,)


def study(folder: Path, subject: str, kind: str, seed: int) -> dict[str, Any]:
    """One run and all its cells, as JSON; what is there already is not done again."""
    name = f"{subject}-{kind}-{seed}"
    result, out = folder / f"{name}.json", folder / name
    if result.exists():
        return json.loads(result.read_text())
    # A study that is cut off between training and drawing does not train again.
    host, trained = StandaloneHost(out), out / "trained.json"
    if not trained.exists():
        shutil.rmtree(out, ignore_errors=True)
        trained.write_text(json.dumps(_train(host, _recipe(out / "data", subject, kind, seed))))
    values = {"subject": subject, "kind": kind, "seed": seed, **json.loads(trained.read_text()), "cells": []}
    if kind not in UNDRAWN:
        with open_easel(host) as easel:
            strengths = LONG_STRENGTHS if kind in ("long", "stopped") else STRENGTHS
            files = _files(host.lora_dir, values["evaluations"], chosen_alone=kind == "stopped")
            values["cells"] = [asdict(cell) for cell in score_cells(easel, files, subject, strengths)]
    result.write_text(json.dumps(values))
    shutil.rmtree(out)
    return values


def _files(folder: Path, evaluations: Sequence[dict[str, Any]], *, chosen_alone: bool) -> dict[int, Path]:
    """Step -> the file of it: of every evaluation, or of the one that the run chose."""
    last, whole = evaluations[-1], folder / "x.safetensors"
    if chosen_alone:
        return {last["best_step"]: whole}
    copies = {found["step"]: folder / f"x-step{found['step']:08d}.safetensors" for found in evaluations[:-1]}
    return {**copies, last["step"]: whole}


def _recipe(folder: Path, subject: str, kind: str, seed: int) -> Recipe:
    """The recipe of the demo with what is bad about this kind; draws its pictures below `folder`."""
    demo = DEMO_RUNS[subject]
    data = demo.draw(folder)
    _spoil(data, demo.name, kind)
    steps = LONG_STEPS if kind in ("long", "stopped") else STEPS
    changes: dict[str, Any] = {
        "seed": seed, "validation_seed": seed, "max_train_steps": steps, "stop_when_learned": kind == "stopped",
        "held_out": "", "validate_every_n_steps": EVERY, "save_every_n_steps": EVERY, "output_name": "x",
        "save_precision": "fp32", "prior_preservation": kind.endswith("-prior"),
    }  # fmt: skip
    recipe = demo.recipe(data).with_values(changes)
    if kind == "fast":
        recipe = recipe.with_values({"learning_rate": recipe.training.learning_rate * 10})
    return recipe


def _spoil(data: Path, word: str, kind: str) -> None:
    own = next(data.glob(f"*_{word}"))
    if kind.startswith("bare"):
        shutil.rmtree(next(data.glob("*_reminders")))
    if kind == "few":
        for picture in sorted(own.glob("*.png"))[6:]:
            picture.unlink()
            picture.with_suffix(".txt").unlink()
    if kind == "untold":
        for caption in own.glob("*.txt"):
            text = caption.read_text().replace(f", painted in {word} style", "").replace(f"{word}, ", "")
            caption.write_text(text)


def _train(host: StandaloneHost, recipe: Recipe) -> dict[str, Any]:
    """The evaluations of a run, and the seconds that its steps and they took."""
    found: list[Evaluated] = []
    seconds = {"training": 0.0, "evaluating": 0.0}
    asked = time.perf_counter()
    for event in run(host, recipe):
        if isinstance(event, Step):
            seconds["training"] += event.seconds
        if isinstance(event, Evaluated):
            seconds["evaluating"] += time.perf_counter() - asked
            found.append(event)
        asked = time.perf_counter()
    return {"seconds": seconds, "evaluations": [asdict(item) for item in found]}


def record(runs: Sequence[dict[str, Any]], path: Path) -> None:
    """Writes the figures of every evaluation, without pictures' names and scores: tests judge them again."""
    left_out = ("curve", "by_picture", "left", "unlearned", "at_once")
    kept = []
    for values in runs:
        found = [{name: item[name] for name in item if name not in left_out} for item in values["evaluations"]]
        kept.append({**{name: values[name] for name in ("subject", "kind", "seed")}, "evaluations": found})
    lines = ",\n".join(json.dumps(values) for values in kept)
    path.write_text(f"[\n{lines}\n]\n")
