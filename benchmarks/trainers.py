"""(c) A whole run of sd-scripts + LyCORIS beside one of ours: first step, step time, losses, on the same work."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from PIL import Image

from benchmarks.cases import ADAPTERS
from benchmarks.environments import ROOT
from benchmarks.pairs import Ratios
from benchmarks.report import say, table


@dataclass(frozen=True)
class Task:
    """What both train: one picture, again and again, on one checkpoint."""

    adapter: str
    checkpoint: str
    size_px: int = 128
    steps: int = 5
    learning_rate: float = 1e-4
    seed: int = 1
    checkpointing: bool = False


@dataclass(frozen=True)
class Outcome:
    """Losses and, in seconds of the process, when each step had ended; sd-scripts counts from its start."""

    losses: list[float]
    ends: list[float]

    @property
    def step_s(self) -> float:
        """The first step is left out: it warms everything up."""
        return statistics.median(after - before for before, after in zip(self.ends, self.ends[1:], strict=False))


def compare_trainers(
    task: Task, scripts: Path, python: str, folder: Path, rounds: int
) -> list[tuple[Outcome, Outcome]]:
    """Pairs of whole runs, ours and sd-scripts' alternating, in the environment of the interpreter `python`."""
    pictures = folder / "pictures" / "100_word"
    pictures.mkdir(parents=True, exist_ok=True)
    Image.linear_gradient("L").resize((task.size_px, task.size_px)).convert("RGB").save(pictures / "a.png")
    (pictures / "a.txt").write_text("word, a gradient")
    (folder / "task.json").write_text(json.dumps(asdict(task)))
    _call([python, "-m", "benchmarks.our_run", str(folder), "prepare"])
    pairs = []
    for number in range(rounds + 1):
        ours, theirs = folder / f"ours{number}.json", folder / f"theirs{number}.json"
        _call([python, "-m", "benchmarks.our_run", str(folder), "time", str(ours)])
        command = [python, "-m", "benchmarks.sd_scripts", str(scripts), str(task.seed), str(theirs)]
        _call([*command, *arguments(task, folder)])
        pairs.append((Outcome(**json.loads(ours.read_text())), Outcome(**json.loads(theirs.read_text()))))
        say(f"pair {number}: {pairs[-1][0].ends} {pairs[-1][1].ends}", progress=True)
    # In the first pair sd-scripts still encodes the picture.
    return pairs[1:]


def report_trainers(task: Task, pairs: list[tuple[Outcome, Outcome]]) -> None:
    first = Ratios(tuple(b.ends[0] / a.ends[0] for a, b in pairs), *(min(p[i].ends[0] for p in pairs) for i in (0, 1)))
    step = Ratios(tuple(b.step_s / a.step_s for a, b in pairs), *(min(p[i].step_s for p in pairs) for i in (0, 1)))
    difference = max(abs(x - y) / y for a, b in pairs for x, y in zip(a.losses, b.losses, strict=True))
    say(f"\n{task.adapter}, a whole run on {Path(task.checkpoint).name} at {task.size_px} px: sd-scripts beside ours\n")
    rows = [
        ["“Train” to the end of the first step", str(first), f"{first.ours_s:.2f}", f"{first.theirs_s:.2f}"],
        ["a step after that", str(step), f"{step.ours_s:.2f}", f"{step.theirs_s:.2f}"],
    ]
    say(table(["", "times as long", "ours, s", "sd-scripts, s"], rows))
    say(f"\nThe losses of {task.steps} steps differ by at most {difference:.1e} of their value.")


def arguments(task: Task, folder: Path) -> list[str]:
    """sd-scripts' command line for the task, with LyCORIS' network module and our start values."""
    adapter = ADAPTERS[task.adapter]
    options = {
        "pretrained_model_name_or_path": task.checkpoint,
        "train_data_dir": folder / "pictures",
        "output_dir": folder / "theirs",
        "output_name": "benchmark",
        "resolution": f"{task.size_px},{task.size_px}",
        "train_batch_size": 1,
        "max_train_steps": task.steps,
        "max_data_loader_n_workers": 0,
        "optimizer_type": "AdamW",
        "learning_rate": task.learning_rate,
        "lr_scheduler": "constant",
        "seed": task.seed,
        "network_module": "lycoris.kohya",
        "network_dim": adapter.network_dim,
        "network_alpha": adapter.network_alpha,
        "network_weights": folder / "start.safetensors",
        "caption_extension": ".txt",
        "tokenizer_cache_dir": folder,
    }
    parts = [f"--{name}={value}" for name, value in options.items()]
    parts += ["--network_train_unet_only", "--cache_latents", "--cache_latents_to_disk", "--sdpa", "--no_metadata"]
    parts += ["--gradient_checkpointing"] if task.checkpointing else []
    return [*parts, "--network_args", *network_arguments(task)]


def network_arguments(task: Task) -> list[str]:
    adapter = ADAPTERS[task.adapter]
    options = {
        "algo": adapter.algo,
        "conv_dim": adapter.conv_dim,
        "conv_alpha": adapter.conv_alpha,
        "use_tucker": adapter.use_tucker,
        "factor": adapter.factor,
        "preset": "unet-only",
    }
    return [f"{name}={value}" for name, value in options.items()]


def _call(command: list[str]) -> None:
    offline = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    subprocess.run(command, check=True, env={**os.environ, **offline}, cwd=ROOT, stdout=sys.stderr)
