"""One implementation's process: reads tasks as JSON lines, answers each with one line. `processes` drives it.

{"load": "layer", …}   builds what is to be measured, in a process forked for it
{"time": repeats}      runs it so often and answers with the seconds that took
{"losses": steps}      takes training steps and answers with their losses
{"steps": count}       takes so many on a GPU, and answers with their time and memory
{"memory": true}       answers with peak bytes, and bytes kept for backward
{"unload": true}       ends what was built

What earlier measurements left of the heap decides for minutes whether later ones find memory that is there already or
must ask for it page by page: up to a fifth of a layer's time. So each load begins with a fresh heap.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any, TextIO

import torch

from benchmarks.cases import ADAPTERS, IMPLEMENTATIONS, Implementation
from benchmarks.loads import build_load
from benchmarks.makers import MAKERS, plain_layer
from benchmarks.pairs import seconds_of
from lib_trainer.adapter.kernels.autograd import LayerOp


def main(name: str) -> None:
    """Serves one implementation until its input ends."""
    # What libraries print must not get between the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    _import_packages(IMPLEMENTATIONS[name])
    for line in sys.stdin:
        if not os.fork():
            _serve(name, json.loads(line), answers)
            return
        if os.wait()[1]:
            raise SystemExit(f"{name} ended at {line}")
        _answer(answers, name)


def _import_packages(implementation: Implementation) -> None:
    """By one tiny layer, so that the processes that are forked do not import seconds' worth of packages each."""
    import benchmarks.steps  # noqa: F401 - with diffusers

    operation = LayerOp((8, 8))
    MAKERS[implementation.maker](plain_layer(operation), operation, ADAPTERS["loha"])


def _serve(name: str, task: dict[str, Any], answers: TextIO) -> None:
    """Builds one load and answers what is asked of it, until it is to end."""
    load = build_load(IMPLEMENTATIONS[name], task)
    _answer(answers, name)
    for line in sys.stdin:
        task = json.loads(line)
        if "unload" in task:
            return
        if "time" in task:
            _answer(answers, seconds_of(load.run, task["time"]))
        elif "steps" in task:
            _answer(answers, load.steps(task["steps"]))
        elif "losses" in task:
            _answer(answers, [_loss(load) for _ in range(task["losses"])])
        else:
            _answer(answers, load.memory())


def _answer(answers: TextIO, value: Any) -> None:
    answers.write(json.dumps(value) + "\n")
    answers.flush()


def _loss(load: Any) -> float:
    load.run()
    return load.loss


if __name__ == "__main__":
    main(sys.argv[1])
