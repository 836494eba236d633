"""Trains the embedded model well and badly, scores every step × strength by what is drawn, and compares with what the
evaluation of the run would have picked.

A: likeness × obedience × unrelated prompts kept. B: A × variety. A pick's share of the best cell's score is reported.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.learning import detector
from benchmarks.learning.drawing import SEEDS, Easel, open_easel
from benchmarks.report import say, table
from lib_trainer.demo import datasets
from lib_trainer.demo.recipes import DEMO_RUNS
from lib_trainer.evaluation.choice import Choice
from lib_trainer.events import Evaluated, Step
from lib_trainer.host.standalone.host import StandaloneHost
from lib_trainer.run import run

KINDS = ("good", "fast", "few", "untold", "bare")
STEPS, EVERY = 320, 40
STRENGTHS = (1.0, 0.8, 0.6)
BACKGROUNDS = ("blue", "white", "pink")
SUBJECTS = ("house", "cat", "cup")
UNRELATED = (
    "a red circle on a blue background",
    "a green tree on a white background",
    "a portrait of a person with short brown hair, smiling, looking at camera on a gray background",
    "a purple car on a yellow background",
)


@dataclass(frozen=True)
class Cell:
    """What is drawn with the file of one step at one strength, 0 to 1 each."""

    step: int
    strength: float
    likeness: float
    obedience: float
    kept: float
    variety: float

    @property
    def a(self) -> float:
        return self.likeness * self.obedience * self.kept

    @property
    def b(self) -> float:
        return self.a * self.variety


def study(folder: Path, subject: str, kind: str, seed: int) -> dict[str, Any]:
    """One run and all its cells, as JSON; what is there already is not done again."""
    result, out = folder / f"{subject}-{kind}-{seed}.json", folder / f"{subject}-{kind}-{seed}"
    if result.exists():
        return json.loads(result.read_text())
    # Scoring takes as long as training: a study that is cut off between them does not train again.
    host, trained = StandaloneHost(out), out / "trained.json"
    if not trained.exists():
        shutil.rmtree(out, ignore_errors=True)
        evaluations, seconds = _train(host, out, subject, kind, seed)
        trained.write_text(json.dumps({"seconds": seconds, "evaluations": [asdict(found) for found in evaluations]}))
    with open_easel(host) as easel:
        cells = [asdict(cell) for cell in _score_all(easel, host.lora_dir, subject)]
    values = {"subject": subject, "kind": kind, "seed": seed, **json.loads(trained.read_text()), "cells": cells}
    result.write_text(json.dumps(values))
    shutil.rmtree(out)
    return values


def _train(
    host: StandaloneHost, out: Path, subject: str, kind: str, seed: int
) -> tuple[list[Evaluated], dict[str, float]]:
    demo = DEMO_RUNS[subject]
    data = demo.draw(out / "data")
    if kind == "bare":
        shutil.rmtree(next(data.glob("*_reminders")))
    own = next(data.glob(f"*_{demo.name}"))
    if kind == "few":
        for picture in sorted(own.glob("*.png"))[6:]:
            picture.unlink()
            picture.with_suffix(".txt").unlink()
    if kind == "untold":
        for caption in own.glob("*.txt"):
            text = caption.read_text().replace(f", painted in {demo.name} style", "").replace(f"{demo.name}, ", "")
            caption.write_text(text)
    changes: dict[str, Any] = {
        "seed": seed, "validation_seed": seed, "max_train_steps": STEPS, "held_out": "",
        "validate_every_n_steps": EVERY, "save_every_n_steps": EVERY, "output_name": "x", "save_precision": "fp32",
    }  # fmt: skip
    recipe = demo.recipe(data).with_values(changes)
    if kind == "fast":
        recipe = recipe.with_values({"learning_rate": recipe.training.learning_rate * 10})
    found: list[Evaluated] = []
    seconds = {"training": 0.0}
    for event in run(host, recipe):
        if isinstance(event, Step):
            seconds["training"] += event.seconds
        if isinstance(event, Evaluated):
            found.append(event)
    return found, seconds


def _score_all(easel: Easel, lora_dir: Path, subject: str) -> Iterator[Cell]:
    """Every step × strength, by what is drawn."""
    base = [group[0] for group in easel.draw(UNRELATED, 1)]
    usual = detector.spread(_class_pictures(easel, subject))
    prompts, asked = _own_prompts(subject, DEMO_RUNS[subject].name)
    see = detector.see_face if subject == "face" else detector.see_style
    for step, strength in product(range(EVERY, STEPS + 1, EVERY), STRENGTHS):
        file = lora_dir / ("x.safetensors" if step == STEPS else f"x-step{step:08d}.safetensors")
        groups = easel.draw(prompts, SEEDS, file, strength)
        seen = see([picture for group in groups for picture in group], [word for word in asked for _ in range(SEEDS)])
        kept = detector.kept([group[0] for group in easel.draw(UNRELATED, 1, file, strength)], base)
        yield Cell(step, strength, seen.likeness, seen.obedience, kept, detector.variety(groups, usual))


def _own_prompts(subject: str, word: str) -> tuple[list[str], Sequence[str]]:
    if subject == "face":
        text = "{}, portrait photo, smiling, looking at camera on a {} background"
        return [text.format(word, name) for name in BACKGROUNDS], BACKGROUNDS
    return [f"a {name}, painted in {word} style" for name in SUBJECTS], SUBJECTS


def _class_pictures(easel: Easel, subject: str) -> list[list[Image.Image]]:
    """Pictures that vary as they should: the base's own people, or real drawings in the style."""
    if subject == "style":
        return [[drawing.picture for drawing in datasets.unseen_style()]]
    return easel.draw(["a portrait of a person, smiling, looking at camera on a blue background"], SEEDS)


def picks(values: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Way to pick -> share of the best cell's A and B that it gets, and the step after which it stops.

    Empty for a run in which no cell shows anything of what was to be learned.
    """
    cells = {(cell["step"], cell["strength"]): Cell(**cell) for cell in values["cells"]}
    found = [Evaluated.from_values(item) for item in values["evaluations"]]
    last = found[-1].step
    by_j = max(found, key=lambda item: item.score)
    by_loss = max(found, key=lambda item: item.learned)
    stopped, choice = found[-1], Choice()
    for item in found:
        stopped = item
        choice.note(item.step, item.score, item.strength)
        if choice.converged:
            break
    chosen = {
        "J": (by_j.step, by_j.strength, last),
        "stopped by J": (choice.best_step, choice.best_strength, stopped.step),
        "L": (by_loss.step, 1.0, last),
        "last at 1": (last, 1.0, last),
    }
    best_a, best_b = (max(getattr(cell, score) for cell in cells.values()) for score in ("a", "b"))
    if not best_b:
        return {}
    shares = {}
    for way, (step, strength, steps) in chosen.items():
        cell = cells[step, min(STRENGTHS, key=lambda drawn: abs(drawn - strength))]
        shares[way] = {"A": cell.a / best_a, "B": cell.b / best_b, "step": step, "strength": strength, "steps": steps}
    return shares


def report_study(runs: Sequence[dict[str, Any]]) -> None:
    """A row a run and one for all: the share of the best cell's A and B that each way to pick gets."""
    ways = next((list(found) for found in map(picks, runs) if found), [])
    rows, shares = [], {way: ([], []) for way in ways}
    for values in runs:
        found, last = picks(values), values["evaluations"][-1]
        name = f"{values['subject']}, {values['kind']}, {values['seed']}"
        if not found:
            rows.append([name, last["verdict"], *("nothing drawn" for _ in ways), ""])
            continue
        for way in ways:
            for place, score in enumerate(("A", "B")):
                shares[way][place].append(found[way][score])
        rows.append([
            name, last["verdict"],
            *(f"{found[way]['A']:.2f} · {found[way]['B']:.2f}" for way in ways),
            f"{found['stopped by J']['steps']} of {last['step']}",
        ])  # fmt: skip
    for name, least in (("mean", False), ("least", True)):
        picked = [[min(s) if least else sum(s) / len(s) for s in shares[way]] for way in ways]
        rows.append([name, "", *(f"{a:.2f} · {b:.2f}" for a, b in picked), ""])
    say(table(["run", "verdict at the end", *(f"{way}: A · B" for way in ways), "steps"], rows))
