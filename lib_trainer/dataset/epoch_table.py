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
        most_repeats: of the picture with the most; those of the regularisation folder may differ by one.
        regularising: they remind the model of the class.
        of_reg_folder: they are from the regularisation folder, so that no mark decides it.
    """

    folder: Path
    pictures: int
    repeats: int
    drawn: int
    share: float
    times: float
    regularising: bool
    most_repeats: int = 0
    of_reg_folder: bool = False

    @property
    def shown_repeats(self) -> str:
        """`10`, or `3–4` where they differ."""
        return f"{self.repeats}–{self.most_repeats}" if self.most_repeats > self.repeats else str(self.repeats)


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
        repeats = [sample.repeats for sample in samples]
        share = sum(repeats) / total
        # A mean: repeats may differ within a folder.
        times = draws * share / len(samples)
        marked, of_reg_folder = samples[0].regularising, folder in scan.reg_folders
        row = EpochRow(
            folder, len(samples), min(repeats), sum(repeats), share, times, marked, max(repeats), of_reg_folder
        )
        rows.append(row)
    return rows
