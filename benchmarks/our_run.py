"""Complete runs of ours in a process that has its checkpoint loaded, as a WebUI has.

`python -m benchmarks.our_run FOLDER prepare` writes what sd-scripts needs to start alike: the factors' start values and
the tokenizer. `… time RESULT.json` trains twice, and reports the second run, which finds its pictures encoded.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.cases import ADAPTERS
from lib_trainer.adapter.attach import new_adapter
from lib_trainer.adapter.io import adapter_tensors, save_adapter
from lib_trainer.config.recipe import Recipe
from lib_trainer.events import Step
from lib_trainer.host.standalone.host import StandaloneHost
from lib_trainer.host.standalone.tokenizer import HUB_NAME, clip_tokenizer
from lib_trainer.run import run


def recipe_of(folder: Path, task: dict) -> Recipe:
    values = {
        "train_data_dir": str(folder / "pictures"),
        "resolution_px": (task["size_px"], task["size_px"]),
        "min_bucket_reso": 64,
        "cache_latents_to_disk": True,
        "max_train_steps": task["steps"],
        "optimizer": "AdamW",
        "learning_rate": task["learning_rate"],
        "lr_scheduler": "constant",
        "gradient_checkpointing": task["checkpointing"],
        "mixed_precision": "fp32",
        "seed": task["seed"],
        "output_name": "benchmark",
    }
    return replace(Recipe(), adapter=ADAPTERS[task["adapter"]]).with_values(values)


def prepare(folder: Path, task: dict) -> None:
    """Writes `start.safetensors`, and the tokenizer where sd-scripts looks for it."""
    host = StandaloneHost(folder / "ours", Path(task["checkpoint"]))
    with host.open_model() as model:
        adapter = new_adapter(model.adaptable_layers(), ADAPTERS[task["adapter"]], task["seed"])
    save_adapter(folder / "start.safetensors", adapter_tensors(adapter, "fp32"), {})
    clip_tokenizer("<|endoftext|>").save_pretrained(folder / HUB_NAME.replace("/", "_"))


def timed(folder: Path, task: dict, result: Path) -> None:
    """Writes the second run's `losses`, and `ends`: seconds of this process from “Train” to the end of each step."""
    torch.set_num_threads(1)
    host, recipe = StandaloneHost(folder / "ours", Path(task["checkpoint"])), recipe_of(folder, task)
    for number in range(2):
        started, losses, ends = time.process_time(), [], []
        for event in run(host, recipe.with_values({"output_name": f"benchmark {result.stem} {number}"})):
            if isinstance(event, Step):
                losses.append(event.loss)
                ends.append(time.process_time() - started)
    result.write_text(json.dumps({"losses": losses, "ends": ends}))


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    facts = json.loads((folder / "task.json").read_text())
    if sys.argv[2] == "prepare":
        prepare(folder, facts)
    else:
        timed(folder, facts, Path(sys.argv[3]))
