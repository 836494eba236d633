"""The commands that measure ours beside other implementations."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.cases import ADAPTERS, BASELINES, IMPLEMENTATIONS, PARTS, Compute
from benchmarks.report import say, where_and_when


def add_comparisons(kinds: Any) -> None:
    """Adds them to the subparsers of `python -m benchmarks`."""
    layers = kinds.add_parser("layers", help="(a) adapted layers alone")
    layers.add_argument("--family", choices=("sd1", "sdxl"), default="sdxl")
    layers.add_argument("--size", type=int, default=0, help="side of the pictures in px; the family's own if 0")
    layers.add_argument("--heaviest", type=int, default=0, help="only so many shapes; all if 0")
    _add_compute(layers)
    _add_common(layers, "+")
    layers.set_defaults(run=_layers)
    host_time = kinds.add_parser("host-time", help="what Python costs for each adapted layer, on tiny ones")
    _add_common(host_time, "*")
    host_time.set_defaults(run=_host_time)
    speed = kinds.add_parser("speed", help="layers and whole steps beside everybody, for docs/speed.md")
    speed.add_argument("--quick", action="store_true", help="small sizes, which the output names: minutes on a CPU")
    speed.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    speed.add_argument("--rounds", type=int, help="pairs of each comparison")
    speed.add_argument("--write", type=Path, help="the page whose figures are replaced")
    names, here = [item.name for item in BASELINES], [item.name for item in BASELINES if item.is_here]
    speed.add_argument("--baselines", nargs="+", choices=names, default=here)
    speed.set_defaults(run=_speed)
    steps = kinds.add_parser("steps", help="(b) and (d) complete training steps, and the bytes they take")
    steps.add_argument("--family", choices=("sd1", "sdxl"), default="sd1")
    steps.add_argument("--size", type=int, default=512, help="side of the pictures in px")
    steps.add_argument("--batch", type=int, default=1)
    steps.add_argument("--checkpointing", action="store_true")
    _add_compute(steps)
    _add_common(steps, "*")
    steps.set_defaults(run=_steps)
    trainers = kinds.add_parser("trainers", help="(c) complete runs beside sd-scripts, where SD_SCRIPTS_DIR names it")
    trainers.add_argument("--checkpoint", required=True, help="an SD 1.5 .safetensors file")
    trainers.add_argument("--python", default=sys.executable, help="interpreter in which both sides run")
    trainers.add_argument("--size", type=int, default=128, help="side of the picture in px")
    trainers.add_argument("--steps", type=int, default=5)
    trainers.add_argument("--checkpointing", action="store_true")
    trainers.add_argument("--adapters", nargs="+", choices=tuple(ADAPTERS), default=["loha", "lokr"])
    trainers.add_argument("--rounds", type=int, default=2)
    trainers.set_defaults(run=_trainers)


def _add_common(parser: argparse.ArgumentParser, how_many: str) -> None:
    parser.add_argument("--adapters", nargs="+", choices=tuple(ADAPTERS), default=list(ADAPTERS))
    names, here = [item.name for item in BASELINES], [item.name for item in BASELINES if item.is_here]
    # Steps are always measured beside a frozen UNet, so other baselines are optional.
    parser.add_argument("--baselines", nargs=how_many, choices=names, default=here)
    parser.add_argument("--rounds", type=int, default=5, help="pairs of each comparison")


def _add_compute(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", choices=("cpu", "cuda"), help="the GPU where there is one")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), help="half precision where the device is faster in it"
    )


def _compute_of(options: argparse.Namespace) -> Compute:
    usual = Compute.of_this_machine()
    return Compute(options.device or usual.device, options.dtype or usual.dtype)


def _layers(options: argparse.Namespace) -> None:
    from benchmarks.layers import compare_layers, report_layers
    from lib_trainer.models.families import FAMILIES

    size = options.size or FAMILIES[options.family].native_size_px
    for adapter in options.adapters:
        baselines = [IMPLEMENTATIONS[name] for name in options.baselines]
        found = compare_layers(
            options.family,
            size,
            adapter,
            baselines,
            options.rounds,
            options.folder,
            options.threads,
            options.heaviest,
            _compute_of(options),
        )
        report_layers(adapter, options.family, size, found)


def _host_time(options: argparse.Namespace) -> None:
    from benchmarks.host_time import compare_host_time, report_host_time

    others = [IMPLEMENTATIONS[name] for name in ("frozen", *options.baselines)]
    for adapter in options.adapters:
        found = compare_host_time(adapter, others, options.rounds, options.folder, options.threads)
        report_host_time(adapter, found)


def _speed(options: argparse.Namespace) -> None:
    from benchmarks.speed import FULL, QUICK, measure_speed, write_page

    baselines = [IMPLEMENTATIONS[name] for name in options.baselines]
    sizes = QUICK if options.quick else FULL
    if options.rounds:
        sizes = replace(sizes, rounds=options.rounds)
    chosen = " --quick" if options.quick else ""
    chosen += f" --parts {' '.join(options.parts)}" if len(options.parts) < len(PARTS) else ""
    chosen += f" --rounds {options.rounds}" if options.rounds else ""
    chosen += f" --baselines {' '.join(options.baselines)}" if len(baselines) < len(BASELINES) else ""
    command = f"python -m benchmarks speed{chosen} --write {options.write}"
    # Each part at once: all of them take hours on a CPU.
    for part, figures in measure_speed(options.parts, sizes, baselines, options.folder, options.threads):
        say(f"\n{figures}")
        if options.write:
            write_page(options.write, part, where_and_when(options.threads), command, figures)


def _steps(options: argparse.Namespace) -> None:
    from benchmarks.training import Setting, compare_steps, report_steps

    for adapter in options.adapters:
        compute = _compute_of(options)
        setting = Setting(options.family, options.size, options.batch, adapter, options.checkpointing, compute)
        baselines = [IMPLEMENTATIONS[name] for name in ("frozen", *options.baselines)]
        ours, found = compare_steps(setting, baselines, options.rounds, options.folder, options.threads)
        report_steps(setting, ours, found)


def _trainers(options: argparse.Namespace) -> None:
    from benchmarks.trainers import Task, compare_trainers, report_trainers

    scripts = os.environ.get("SD_SCRIPTS_DIR")
    if not scripts:
        raise SystemExit("SD_SCRIPTS_DIR names no checkout of sd-scripts.")
    for adapter in options.adapters:
        task = Task(adapter, options.checkpoint, options.size, options.steps, checkpointing=options.checkpointing)
        with tempfile.TemporaryDirectory() as folder:
            pairs = compare_trainers(task, Path(scripts), options.python, Path(folder), options.rounds)
        report_trainers(task, pairs)
