"""`train`: a recipe on a folder of pictures."""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict
from typing import Any

from lib_trainer.adapter.metadata import EVALUATED
from lib_trainer.cli.host import open_host
from lib_trainer.cli.output import Answer, say
from lib_trainer.cli.recipe import open_recipe, parse_settings
from lib_trainer.cli.run_training import train
from lib_trainer.demo.recipes import EMBEDDED_SIZES
from lib_trainer.events import Evaluated, Finished
from lib_trainer.training.processes import ALONE, Processes


def run_train(options: argparse.Namespace, processes: Processes = ALONE) -> Answer:
    """Trains, and answers where the adapter is. Raises ConfigError with every invalid setting."""
    host = open_host(options.out, options.checkpoint, processes)
    loaded = open_recipe(options.recipe)
    notices = list(loaded.notices)
    values: dict[str, Any] = {"output_name": options.name}
    if options.data:
        values["train_data_dir"] = str(options.data)
    if options.trigger_word:
        values["trigger_word"] = options.trigger_word
    if host.is_embedded:
        # It has one size; a recipe for 896 px would only fail.
        values |= EMBEDDED_SIZES
        notices.append("The embedded model draws 64×64 px: the recipe's sizes are set to 64 px.")
    recipe = loaded.complete({**values, **parse_settings(options.set)})
    for notice in notices:
        say(notice)
    started = time.monotonic()
    finished, said = train(host, recipe, processes=processes)
    seconds = time.monotonic() - started
    values = {**describe_run(finished, seconds), "notices": [*notices, *said]}
    return Answer(values, (summarize_run(finished, seconds),))


def describe_run(finished: Finished, seconds: float) -> dict[str, Any]:
    """What a program wants to know of a run."""
    return {
        "path": finished.path,
        "tag": finished.tag,
        "steps": finished.steps,
        "stopped_early": finished.stopped_early,
        "seconds": round(seconds, 1),
        **describe_evaluation(finished.evaluated),
    }


def describe_evaluation(found: Evaluated | None) -> dict[str, Any]:
    """What a program wants to know of what was learned; {} where nothing was measured."""
    values = asdict(found) if found else {}
    return {name: values[name] for name in EVALUATED if name in values}


def summarize_run(finished: Finished, seconds: float) -> str:
    """What a person wants to know of a run."""
    early = ", stopped early" if finished.stopped_early else ""
    found = finished.evaluated
    verdict = f". {found.verdict.capitalize()}: {found.advice}" if found else ""
    return f"{finished.path}: {finished.steps} steps in {seconds:.0f} s{early}. Use it as {finished.tag}{verdict}"
