"""`demo`: the embedded model learns a face, a style or both; figures and a grid show what it learned."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lib_trainer.cli.grid import GRID_FILE, draw_plan, save_drawn
from lib_trainer.cli.host import open_host
from lib_trainer.cli.output import Answer, say
from lib_trainer.cli.run_training import train
from lib_trainer.cli.train import describe_run, summarize_run
from lib_trainer.demo.datasets import FACE_WORD, SIZE_PX, STYLE_WORD, prior_drawings
from lib_trainer.demo.evaluate import LearningFigures, measure
from lib_trainer.demo.recipes import DEMO_RUNS, DemoRun
from lib_trainer.host.base import GenerateRequest
from lib_trainer.host.standalone.host import StandaloneHost
from lib_trainer.host.standalone.merge_lora import merged_loras
from lib_trainer.lora.tags import LoraRef
from lib_trainer.preview.grid_spec import GridSpec, lora_grid, strength_grid

STRENGTHS = (0.0, 0.5, 0.7, 0.85, 1.0)
COMBINED_FILE = "combined_grid.png"
# The embedded model follows its captions with little guidance, and more of it would draw over the adapters.
REQUEST = GenerateRequest("", width_px=SIZE_PX, height_px=SIZE_PX, steps=25, cfg_scale=1.5, seed=5)
COMBINED_PROMPTS = (
    f"portrait of {FACE_WORD} in {STYLE_WORD} style",
    f"{FACE_WORD}, portrait photo, looking at camera",
    f"a house, painted in {STYLE_WORD} style",
)


def run_demo(out: Path, kinds: Sequence[str]) -> Answer:
    """Trains each demo, measures it and draws its grid; with two demos also a grid of both."""
    started = time.monotonic()
    host = open_host(out)
    trained: dict[str, Any] = {}
    values: dict[str, Any] = {"trained": trained, "stopped_early": False}
    lines: list[str] = []
    for kind in kinds:
        trained[kind], said = _train_one(host, DEMO_RUNS[kind], out, prefix="" if kind == kinds[0] else f"{kind}_")
        lines += said
        values["stopped_early"] = trained[kind]["stopped_early"]
        # Ctrl-C ends the whole demo, not one of its runs.
        if values["stopped_early"]:
            break
    else:
        if len(kinds) > 1:
            values["combined_grid"] = _draw_together(host, out / COMBINED_FILE)
            lines.append(f"Both together: {values['combined_grid']}")
    values["seconds"] = round(time.monotonic() - started, 1)
    lines.append(f"All in {values['seconds']:.0f} s.")
    return Answer(values, tuple(lines))


def _train_one(host: StandaloneHost, demo: DemoRun, out: Path, prefix: str) -> tuple[dict[str, Any], list[str]]:
    started = time.monotonic()
    recipe = demo.recipe(demo.draw(out / "data" / demo.name)).check()
    say(f"Training {demo.name} with {demo.preset}, {recipe.training.max_train_steps} steps.")
    finished, notices = train(host, recipe)
    seconds = time.monotonic() - started
    values = {**describe_run(finished, seconds), "notices": list(notices)}
    lines = [summarize_run(finished, seconds)]
    # Figures of half a training would be compared with those of a whole one.
    if finished.stopped_early:
        return values, lines
    say("Measuring what it has learned.")
    # The saved file is measured, not the adapter in memory: it is what a person uses.
    figures = host.run_exclusive(lambda: measure_file(host, finished.path, demo))
    values["learning"] = describe_figures(figures)
    lines += summarize_figures(figures)
    values["grid"] = out / f"{prefix}{GRID_FILE}"
    plan = strength_grid(REQUEST, demo.prompts, (REQUEST.seed,), LoraRef(demo.name), STRENGTHS)
    _draw(host, values["grid"], plan)
    return values, [*lines, f"What it draws: {values['grid']}"]


def measure_file(host: StandaloneHost, path: Path, demo: DemoRun) -> LearningFigures:
    """The figures of a saved file, merged into the weights, as for drawing."""
    with host.open_model() as model:
        layers = [*model.adaptable_layers(), *model.norm_layers(), *model.text_layers()]
        return measure(
            model,
            lambda strength: merged_loras(layers, [(path, strength)]),
            demo.heldout(),
            prior_drawings(),
            demo.unseen(),
        )


def describe_figures(figures: LearningFigures) -> dict[str, Any]:
    """The figures for a program: losses by strength, and what follows from them."""
    losses = {
        name: {f"{strength:g}": round(loss, 6) for strength, loss in by_strength.items()}
        for name, by_strength in asdict(figures).items()
    }
    return {
        **losses,
        "gain": round(figures.gain, 4),
        "prior_rise": round(figures.prior_rise, 4),
        "grows_with_strength": figures.grows_with_strength,
    }


def summarize_figures(figures: LearningFigures) -> list[str]:
    """The figures for a person."""
    rows = {"held-out pictures": figures.concept, "unseen captions": figures.unseen, "other pictures": figures.prior}
    lines = ["Denoising loss by strength (lower is better):"]
    lines += [
        f"  {name:18}" + "  ".join(f"{strength:g}: {loss:.4f}" for strength, loss in losses.items())
        for name, losses in rows.items()
        if losses
    ]
    growing = "grows" if figures.grows_with_strength else "does not grow"
    return [
        *lines,
        f"Strength 1 changes the loss of held-out pictures by {-figures.gain:+.1%}, of other pictures by"
        f" {figures.prior_rise:+.1%}.",
        f"The effect {growing} with every strength from 0 to 0.8.",
    ]


def _draw_together(host: StandaloneHost, path: Path) -> Path:
    face, style = LoraRef(FACE_WORD, 0.8), LoraRef(STYLE_WORD, 0.6)
    # Below 1: two LoRAs at full strength distort each other.
    columns = [("without", ()), (face.label, (face,)), (style.label, (style,)), ("both", (face, style))]
    _draw(host, path, lora_grid(REQUEST, COMBINED_PROMPTS, columns))
    return path


def _draw(host: StandaloneHost, path: Path, plan: GridSpec) -> None:
    save_drawn(path, plan, draw_plan(host, plan, []))
