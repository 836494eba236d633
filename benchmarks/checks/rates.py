"""How often the checks are right: sets of 40 pictures with distorted ones among them, and a clean set of 50."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

from benchmarks.checks.distortions import COPIES, IN_PLACE, Distort
from benchmarks.checks.photographs import photograph
from benchmarks.report import say, table
from lib_trainer.config.recipe import DatasetConfig
from lib_trainer.dataset.checks.check_folder import check_folder
from lib_trainer.dataset.checks.finding import Finding
from lib_trainer.dataset.scan import scan_folder

PICTURES, SPOILED, CLEAN = 40, 10, 50


@dataclass(frozen=True)
class Rate:
    """How a check did on a set.

    Attributes:
        hits, misses: spoiled pictures that were marked, and not.
        false: clean pictures that were marked.
    """

    name: str
    hits: int
    misses: int
    false: int


def measure_rates(seeds: int) -> Iterator[Rate]:
    """Every check on `seeds` sets of its own."""
    for seed in range(seeds):
        for kind, distort in IN_PLACE.items():
            yield spoiled_set(kind, distort, seed)
        for name, distort in COPIES.items():
            yield copied_set(name, distort, seed)


def spoiled_set(kind: str, distort: Distort, seed: int) -> Rate:
    """40 pictures, 10 of them distorted in place."""
    rng = Random(f"{kind} {seed}")
    spoiled = set(rng.sample(range(PICTURES), SPOILED))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(PICTURES):
            picture = photograph(f"{kind} {seed} {number}")
            (distort(picture, rng) if number in spoiled else picture).save(
                folder / f"{number:02}.png", compress_level=1
            )
        found = findings(folder)
    wanted = {f"{number:02}.png" for number in spoiled}
    return _rate(kind, wanted, {path.name for item in found if item.kind == kind for path in item.pictures})


def copied_set(name: str, distort: Distort, seed: int) -> Rate:
    """30 pictures and distorted copies of 10 of them: each copy is wanted in one group with its original."""
    rng = Random(f"{name} {seed}")
    spoiled = rng.sample(range(PICTURES - SPOILED), SPOILED)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for number in range(PICTURES - SPOILED):
            picture = photograph(f"{name} {seed} {number}")
            picture.save(folder / f"{number:02}.png", compress_level=1)
            if number in spoiled:
                distort(picture, rng).save(folder / f"{number:02}-copy.png", compress_level=1)
        found = findings(folder)
    groups = [{path.name for path in item.pictures} for item in found if item.kind == "duplicate"]
    pairs = {f"{number:02}-copy.png" for number in spoiled if {f"{number:02}.png", f"{number:02}-copy.png"} in groups}
    false = {f"false {number}" for number, group in enumerate(groups) if len({name[:2] for name in group}) > 1}
    return _rate("duplicate", {f"{number:02}-copy.png" for number in spoiled}, pairs | false, name)


def clean_set(seed: int = 0) -> list[Finding]:
    """Everything that is said of 50 clean pictures."""
    with tempfile.TemporaryDirectory() as name:
        for number in range(CLEAN):
            photograph(f"clean {seed} {number}").save(Path(name) / f"{number:02}.png", compress_level=1)
        return findings(Path(name))


def findings(folder: Path) -> list[Finding]:
    """What is said of a folder's pixels and sizes; the photographs have no captions."""
    config = DatasetConfig(train_data_dir=str(folder))
    events = check_folder(scan_folder(config), config)
    return [item for item in events if isinstance(item, Finding) and item.kind not in ("caption", "trigger")]


def report_rates(rates: list[Rate], clean: list[list[Finding]]) -> None:
    by_name: dict[str, list[Rate]] = {}
    for rate in rates:
        by_name.setdefault(rate.name, []).append(rate)
    rows = []
    for name, found in by_name.items():
        hits, misses, false = (sum(getattr(rate, part) for rate in found) for part in ("hits", "misses", "false"))
        rows.append(
            [
                name,
                f"{hits} of {hits + misses}",
                f"{false}",
                f"{hits / max(1, hits + false):.2f}",
                f"{hits / (hits + misses):.2f}",
            ]
        )
    say(table(["check", "found", "false", "precision", "recall"], rows))
    marked = [item.kind for found in clean for item in found]
    say(f"{len(clean)} clean sets of {CLEAN}: {', '.join(marked) or 'nothing marked'}")


def _rate(kind: str, wanted: set[str], marked: set[str], name: str = "") -> Rate:
    shown = f"{kind} ({name})" if name else kind
    return Rate(shown, len(wanted & marked), len(wanted - marked), len(marked - wanted))
