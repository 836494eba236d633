"""What an epoch draws, folder by folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lib_trainer.dataset.scan import Scan


@dataclass(frozen=True)
class EpochRow:
    """One folder of pictures.

    Attributes:
        drawn: pictures that an epoch draws of it, repeats included; `share` of all.
        times: how often a run draws each of its pictures; 0 where its length is not known.
        regularising: they remind the model of the class.
    """

    folder: Path
    pictures: int
    repeats: int
    drawn: int
    share: float
    times: float
    regularising: bool


def epoch_table(scan: Scan, draws: int = 0) -> list[EpochRow]:
    """The folders of a scan in its order.

    Args:
        draws: pictures that the whole run draws: steps × batch size × accumulation steps.
    """
    folders: dict[Path, list] = {}
    for sample in scan.samples:
        folders.setdefault(sample.image.parent, []).append(sample)
    total = sum(sample.repeats for sample in scan.samples)
    rows = []
    for folder, samples in folders.items():
        repeats, drawn = samples[0].repeats, sum(sample.repeats for sample in samples)
        share = drawn / total
        times = draws * share / len(samples)
        rows.append(EpochRow(folder, len(samples), repeats, drawn, share, times, samples[0].regularising))
    return rows
