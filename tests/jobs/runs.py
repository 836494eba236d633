"""Runs for tests of jobs: a recipe, one that the test leads step by step, and one of given events."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

from lib_trainer.config.recipe import Recipe
from lib_trainer.events import Command, Evaluated, Event, Finished, Saved, Started, StateSaved, Step, StopRequested
from lib_trainer.jobs.history import STATE_FILE
from tests.ui.fakes import FakeHost

RECIPE = Recipe().with_values({"output_name": "jeff", "train_data_dir": "/pictures"})


class LedRun:
    """A run that takes a step only when the test says `go`, and notes what was thrown into it."""

    def __init__(self, steps: int = 50) -> None:
        self.steps = steps
        self.go = threading.Semaphore(0)
        self.number = 0
        self.stop: StopRequested | None = None
        self.closed = False
        self.commands: list[tuple[int, Command]] = []

    def __call__(self, host: FakeHost, recipe: Recipe, folder: Path) -> Iterator[Event]:
        try:
            for number in range(1, self.steps + 1):
                self.number = number
                self.go.acquire()
                command = yield Step(self.number, self.steps, 1, 0.1, 1e-4, 0.5)
                while command:
                    self.commands.append((number, command))
                    command = yield StateSaved(number)
        except StopRequested as stop:
            self.stop = stop
            if not stop.save:
                raise
        else:
            self.number = self.steps
        finally:
            self.closed = True
        path = host.lora_dir / "jeff.safetensors"
        yield Saved(path, self.number)
        yield Finished(path, "<lora:jeff:0.8>", self.number, stopped_early=self.stop is not None)


def evaluated_at(step: int, **changes: object) -> Evaluated:
    """A measured run that has learned, unless `changes` say otherwise."""
    values = {
        "step": step, "learned": 0.3, "trained": 0.4, "drift": 0.1, "memorised": 0.1, "bound": 0.05,
        "least_loss_strength": 1.1, "score": 0.3, "strength": 1.0, "best_step": step, "best_strength": 1.0,
        "verdict": "learned", "advice": "More steps do not help.", "curve": ((0.0, 0.0), (1.0, 0.3)),
    }  # fmt: skip
    return Evaluated(**{**values, **changes})


def unfinished_run(host: FakeHost, recipe: Recipe, folder: Path) -> Iterator[Event]:
    """Three steps, after which five more may help; a resumed run takes all of its recipe and has learned."""
    resumed = (folder / STATE_FILE).exists()
    steps = recipe.training.max_train_steps if resumed else 3
    yield Started(3 if resumed else 0, steps, "Realistic.safetensors", "")
    for number in range(4 if resumed else 1, steps + 1):
        yield Step(number, steps, 1, 0.1, 1e-4, 0.01)
    found = evaluated_at(steps) if resumed else evaluated_at(3, verdict="not learned yet", more_steps=5)
    yield found
    (folder / STATE_FILE).write_bytes(b"state")
    yield StateSaved(steps)
    path = host.lora_dir / "jeff.safetensors"
    yield Saved(path, steps)
    yield Finished(path, "<lora:jeff:0.8>", steps, evaluated=found)


def events_run(*events: Event | Exception):
    def run(host, recipe, folder):
        for event in events:
            if isinstance(event, Exception):
                raise event
            yield event

    return run


def step(number: int, total: int = 10, seconds: float = 0.5) -> Step:
    return Step(number, total, 1, 1.0 / number, 1e-4, seconds, 2**30)


def named(name: str, **values: object) -> Recipe:
    return RECIPE.with_values({"output_name": name, **values})
