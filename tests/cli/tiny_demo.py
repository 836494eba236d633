"""The command line on a tiny random model instead of the embedded one, also as a program of its own:
`python -m tests.cli.tiny_demo FOLDER COMMAND …`."""

from __future__ import annotations

import sys
from pathlib import Path

from lib_trainer.cli.main import main
from lib_trainer.demo.recipes import DEMO_RUNS
from lib_trainer.host.standalone import host as standalone
from lib_trainer.models.families import SD1
from tests.host.tiny_pipelines import tiny_pipeline


def write_weights(folder: Path) -> Path:
    folder.mkdir(parents=True)
    tiny_pipeline(SD1, folder).save_pretrained(folder)
    return folder


def run(weights: Path, arguments: list[str]) -> int:
    standalone.WEIGHTS = weights
    for demo_run in DEMO_RUNS.values():
        demo_run.overrides.update(max_train_steps=2, sample_prompts="jeff_person, a hat --s 1")
    return main(arguments)


if __name__ == "__main__":
    sys.exit(run(Path(sys.argv[1]), sys.argv[2:]))
