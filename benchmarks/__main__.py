"""The command line: `python -m benchmarks layers`, and so on."""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

from benchmarks.cases import BASELINES, IMPLEMENTATIONS
from benchmarks.comparisons import add_comparisons
from benchmarks.report import say, where_and_when


def main(arguments: list[str] | None = None) -> None:
    """Runs one benchmark and prints its tables."""
    options = _parser().parse_args(arguments)
    say(where_and_when(options.threads))
    options.run(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Ours beside other trainers, in pairs.")
    parser.add_argument("--threads", type=int, default=1, help="of each side; they never run at once")
    folder = Path(tempfile.gettempdir()) / "train_lora_benchmarks"
    parser.add_argument("--folder", type=Path, default=folder, help="where the baselines' packages are installed")
    kinds = parser.add_subparsers(required=True)
    add_comparisons(kinds)
    scan = kinds.add_parser("scan", help="a large folder of pictures")
    scan.add_argument("--pictures", nargs="+", type=int, default=[1000, 10000])
    scan.set_defaults(run=_scan)
    large = kinds.add_parser("large-folder", help="thousands of pictures in Captions & crops, in Chromium")
    large.add_argument("--pictures", type=int, default=10000)
    large.add_argument("--chromium", default=os.environ.get("CHROMIUM", "/usr/bin/chromium"))
    large.set_defaults(run=_large_folder)
    checks = kinds.add_parser("checks", help="precision and recall of the checks of a folder, and a clean folder")
    checks.add_argument("--seeds", type=int, default=3, help="sets a check")
    checks.set_defaults(run=_checks)
    mending = kinds.add_parser("mending", help="a face trained from a spoiled folder, and from the folder made good")
    mending.add_argument("--steps", type=int, default=200)
    mending.add_argument("--seeds", type=int, default=1)
    mending.add_argument("--cases", nargs="+", default=["trigger word first", "duplicates out", "masks"])
    mending.set_defaults(run=_mending)
    growth = kinds.add_parser("growth", help="step time against batch, tokens, rank and layers, with a plot")
    growth.add_argument("--plot", type=Path, default=Path("docs/growth.png"))
    growth.set_defaults(run=_growth)
    plans = kinds.add_parser("plans", help="memory plans of the shipped recipes beside simulated steps")
    plans.add_argument("--budget", type=float, default=8, help="VRAM of the GPU that is planned for, in GB")
    plans.set_defaults(run=_plans)
    card = kinds.add_parser("card", help="a GPU's steps a second, memory and first step, ours and theirs")
    card.add_argument("--family", choices=("sd1", "sdxl"), default="sdxl")
    card.add_argument("--sizes", nargs="+", type=int, default=[1024], help="sides of the pictures in px")
    card.add_argument("--budget", type=float, default=8, help="VRAM of the GPU that is planned for, in GB")
    card.add_argument("--baselines", nargs="*", choices=[item.name for item in BASELINES], default=["lycoris-4.1.3"])
    card.set_defaults(run=_card)
    int8 = kinds.add_parser("int8", help="what 8-bit products cost in accuracy, on the embedded model")
    int8.add_argument("--runs", nargs="+", choices=("face", "style"), default=["face", "style"])
    int8.add_argument("--steps", type=int, default=200)
    int8.set_defaults(run=_int8)
    sliders = kinds.add_parser("sliders", help="what each strength of a slider and of a difference draws")
    sliders.add_argument("--cases", nargs="+", default=[], help="colour, size, glasses … (default: all)")
    sliders.add_argument("--strengths", nargs="+", type=float, default=[-1, -0.5, 0, 0.5, 1])
    sliders.set_defaults(run=_sliders)
    pair = kinds.add_parser("pair", help="a face trained alone and over a style, both in one prompt")
    pair.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    pair.add_argument("--face-steps", type=int, default=250)
    pair.add_argument("--style-steps", type=int, default=300)
    pair.set_defaults(run=_pair)
    pivotal = kinds.add_parser("pivotal", help="an embedding for the trigger word, alone and beside the adapter")
    pivotal.add_argument("--seeds", nargs="+", type=int, default=[1])
    pivotal.add_argument("--steps", type=int, default=100)
    pivotal.add_argument("--rate", type=float, default=1e-2, help="learning rate of the embedding")
    pivotal.set_defaults(run=_pivotal)
    learning = kinds.add_parser("learning", help="whether evaluations choose the step and strength that draw best")
    learning.add_argument("--results", type=Path, required=True, help="folder for a JSON file a run; kept ones stand")
    learning.add_argument("--subjects", nargs="+", choices=("face", "style"), default=["face", "style"])
    learning.add_argument(
        "--kinds", nargs="+", default=[], help="good fast few untold bare (default), long good-prior bare-prior"
    )
    learning.add_argument("--seeds", nargs="+", type=int, default=[1, 2])
    learning.add_argument("--record", type=Path, help="a file for the figures of all evaluations, for the tests")
    learning.set_defaults(run=_learning)
    cost = kinds.add_parser("learning-cost", help="what evaluations take of a run of a shipped recipe")
    cost.add_argument("--subject", choices=("face", "style"), default="face")
    cost.set_defaults(run=_learning_cost)
    return parser


def _scan(options: argparse.Namespace) -> None:
    from benchmarks.scan import report_scan, time_scan

    found = []
    for pictures in options.pictures:
        with tempfile.TemporaryDirectory() as folder:
            found.append(time_scan(Path(folder), pictures))
    report_scan(found)


def _large_folder(options: argparse.Namespace) -> None:
    from benchmarks.large_folder import measure_folder, report_folder

    folder = options.folder / f"{options.pictures}_pictures"
    report_folder(options.pictures, measure_folder(options.pictures, folder, options.chromium))


def _checks(options: argparse.Namespace) -> None:
    from benchmarks.checks.rates import clean_set, measure_rates, report_rates

    report_rates(list(measure_rates(options.seeds)), [clean_set(seed) for seed in range(options.seeds)])


def _mending(options: argparse.Namespace) -> None:
    from benchmarks.dataset_learning import compare, report_comparison

    for found in compare(options.cases, options.steps, options.seeds):
        report_comparison(*found)


def _growth(options: argparse.Namespace) -> None:
    from benchmarks.growth import measure_growth, plot_growth, report_growth

    found = measure_growth(options.threads)
    report_growth(found)
    plot_growth(found, options.plot)


def _plans(options: argparse.Namespace) -> None:
    from benchmarks.plans import report_plans

    report_plans(options.budget)


def _learning(options: argparse.Namespace) -> None:
    from benchmarks.learning.study import KINDS, record, study
    from benchmarks.learning.tables import report_study

    options.results.mkdir(parents=True, exist_ok=True)
    runs = [(s, k, n) for n in options.seeds for k in options.kinds or KINDS for s in options.subjects]
    found = [study(options.results, *run) for run in runs]
    report_study(found)
    if options.record:
        record(found, options.record)


def _learning_cost(options: argparse.Namespace) -> None:
    from benchmarks.learning.cost import report_cost

    report_cost(options.subject)


def _int8(options: argparse.Namespace) -> None:
    from benchmarks.int8 import report_int8

    report_int8(options.runs, options.steps)


def _sliders(options: argparse.Namespace) -> None:
    from benchmarks.sliders import report_sliders

    report_sliders(options.cases, options.strengths)


def _pair(options: argparse.Namespace) -> None:
    from benchmarks.coexistence import report_pairs

    report_pairs(options.seeds, options.face_steps, options.style_steps)


def _pivotal(options: argparse.Namespace) -> None:
    from benchmarks.pivotal import report_ways

    report_ways(options.seeds, options.steps, options.rate)


def _card(options: argparse.Namespace) -> None:
    from benchmarks.card import measure_on_card, report_on_card, theirs_on_card

    sizes = options.family, options.sizes, options.budget
    theirs = [IMPLEMENTATIONS[name] for name in options.baselines]
    found = [*measure_on_card(*sizes), *theirs_on_card(*sizes, theirs, options.folder, options.threads)]
    report_on_card(found)


if __name__ == "__main__":
    main()
