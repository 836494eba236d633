"""One implementation's process: reads tasks as JSON lines, answers each with one line. `processes` drives it.

{"load": "layer", …}   builds what is to be measured
{"time": repeats}      runs it so often and answers with the seconds that took
{"losses": steps}      takes training steps and answers with their losses
{"memory": true}       answers with peak bytes, and bytes kept for backward
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import torch

from benchmarks.cases import IMPLEMENTATIONS
from benchmarks.loads import LOADS, Load
from benchmarks.pairs import seconds_of
from benchmarks.steps import StepLoad


def main(name: str) -> None:
    """Serves one implementation until its input ends."""
    # What libraries print must not get between the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    load: Load | None = None
    for line in sys.stdin:
        task = json.loads(line)
        if "load" in task:
            # The old one goes first: two may not fit.
            load = None
            load = LOADS[task["load"]](IMPLEMENTATIONS[name].maker, task)
            answer: Any = name
        elif "time" in task:
            answer = seconds_of(load.run, task["time"])
        elif "losses" in task:
            answer = [_loss(load) for _ in range(task["losses"])]
        else:
            answer = load.memory()
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _loss(load: StepLoad) -> float:
    load.run()
    return load.loss


if __name__ == "__main__":
    main(sys.argv[1])
