"""What evaluations cost in a run of a shipped recipe: its batch, steps and checkpointing, on the embedded model."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from diffusers import UNet2DConditionModel
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from benchmarks.report import say, table
from lib_trainer.demo.recipes import DEMO_RUNS, EMBEDDED_SIZES
from lib_trainer.evaluation.constants import FORWARDS_A_STEP
from lib_trainer.events import Evaluated, Event, Progress, Step
from lib_trainer.host.standalone.host import StandaloneHost
from lib_trainer.recipes.files import PRESET_DIR, load_recipe
from lib_trainer.run import run

# What the embedded model and a CPU cannot do; everything else is the recipe's own.
_CHANGES: dict[str, Any] = {**EMBEDDED_SIZES, "optimizer": "AdamW", "mixed_precision": "fp32"}
CHECKPOINT, STEPS, EVALUATIONS = "measuring the checkpoint", "steps", "evaluations"


@dataclass
class Spent:
    """How often something was done, its seconds of CPU, and the pictures that went forward through the UNet for it."""

    times: int = 0
    seconds: float = 0.0
    forwards: int = 0


@contextmanager
def counted_forwards() -> Iterator[Spent]:
    """Counts the pictures that any UNet is asked about."""
    spent = Spent()

    def count(module: nn.Module, given: tuple[Any, ...]) -> None:
        if isinstance(module, UNet2DConditionModel):
            spent.forwards += len(given[0])

    handle = register_module_forward_pre_hook(count)
    try:
        yield spent
    finally:
        handle.remove()


def report_cost(subject: str) -> None:
    """A run of the subject's shipped recipe to its end, with the demo's pictures of it."""
    demo = DEMO_RUNS[subject]
    with TemporaryDirectory() as folder:
        data = demo.draw_dataset(Path(folder) / "data")
        loaded = load_recipe(PRESET_DIR / demo.preset).recipe
        names = {"train_data_dir": str(data), "output_name": "x", "trigger_word": demo.name}
        recipe = loaded.with_values({**_CHANGES, **names})
        spent = _spent(run(StandaloneHost(Path(folder) / "host"), recipe))
    rows = [[name, str(part.times), f"{part.seconds:.1f}", str(part.forwards)] for name, part in spent.items()]
    say(table(["part", "times", "seconds of CPU", "pictures forward"], rows))
    steps, evaluations = spent[STEPS], spent[EVALUATIONS]
    share = evaluations.forwards / (FORWARDS_A_STEP * steps.times * recipe.training.train_batch_size)
    say(
        f"Evaluations: {evaluations.seconds / steps.seconds:.1%} of the steps' time; "
        f"{share:.1%} of their forward passes, where a step takes as long as {FORWARDS_A_STEP}."
    )


def _spent(story: Iterator[Event]) -> dict[str, Spent]:
    """What each part of a run took."""
    spent = {name: Spent() for name in (CHECKPOINT, STEPS, EVALUATIONS)}
    with counted_forwards() as every:
        asked, known, previous = time.process_time(), 0, None
        for event in story:
            seconds, forwards = time.process_time() - asked, every.forwards - known
            if name := _part(event, previous):
                spent[name].times += 1
                spent[name].seconds += seconds
                spent[name].forwards += forwards
            asked, known, previous = time.process_time(), every.forwards, event
    return spent


def _part(event: Event, previous: Event | None) -> str:
    """To what the time before this event goes; "" for other things."""
    if isinstance(event, Step):
        return STEPS
    if isinstance(event, Evaluated):
        return EVALUATIONS
    training = isinstance(previous, Progress) and previous.phase == "training"
    return CHECKPOINT if training and "the checkpoint" in previous.note else ""
