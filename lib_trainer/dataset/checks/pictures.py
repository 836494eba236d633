"""The measured pictures of a folder, in columns: about 350 bytes each, so that ten thousand take a few megabytes."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

import numpy as np

from lib_trainer.dataset.checks.hashes import TURNS
from lib_trainer.dataset.checks.measure import KEPT_PX, PALETTE, SURROUND, Measured
from lib_trainer.dataset.samples import Sample

# One picture, named as in `Measured`; `face` is the largest one's share, 0 without a face, NaN without OpenCV.
_ROW = np.dtype(
    [
        ("sharpness", "f4"), ("bright", "f4"), ("clipped", "f4"), ("colourfulness", "f4"), ("face", "f4"),
        ("palette", "f4", PALETTE), ("surround", "u1", (SURROUND, 3)), ("hashes", "u1", (TURNS, 8)),
        ("colours", "f4", 6),
    ]
)  # fmt: skip
_SMALL = (KEPT_PX, KEPT_PX, 3)
_SMALL_BYTES = KEPT_PX * KEPT_PX * 3
# Small copies of so many pictures stay in memory; the others go into a file without a name.
_IN_MEMORY = 1000


class Pictures:
    """What every check is given. `samples` and the columns are in the order in which pictures were added.

    Attributes:
        samples: of the pictures that could be measured.
        part_hashes: (P, 8) uint8 a picture, as `Measured` has them; None where there are none.
    """

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self.part_hashes: list[np.ndarray | None] = []
        self._rows = np.empty(64, _ROW)
        self._kept: dict[int, np.ndarray] = {}
        self._file: IO[bytes] | None = None

    def __len__(self) -> int:
        return len(self.samples)

    def add(self, sample: Sample, measured: Measured) -> None:
        place = len(self.samples)
        if place == len(self._rows):
            self._rows = np.concatenate([self._rows, np.empty(place, _ROW)])
        row = self._rows[place]
        for name in ("sharpness", "bright", "clipped", "colourfulness", "palette", "surround", "hashes"):
            row[name] = getattr(measured, name)
        row["face"] = np.nan if measured.faces is None else max(measured.faces, default=0.0)
        # The same for a picture, however it is turned.
        row["colours"] = [*measured.small.mean((0, 1)), *measured.small.std((0, 1))]
        self._keep(place, measured.small)
        self.samples.append(sample)
        self.part_hashes.append(measured.part_hashes)

    def column(self, name: str) -> np.ndarray:
        """(N, …) of one number or array of `Measured`, `face`, or `colours`: mean and spread of R, G, B in 0…255."""
        return self._rows[name][: len(self)]

    def small(self, place: int) -> np.ndarray:
        """(40, 40, 3) uint8, the small copy of one picture."""
        if place in self._kept or self._file is None:
            return self._kept[place]
        self._file.seek(place * _SMALL_BYTES)
        return np.frombuffer(self._file.read(_SMALL_BYTES), np.uint8).reshape(_SMALL)

    def images(self, chosen: np.ndarray) -> tuple[Path, ...]:
        """The files of those pictures for which an array of booleans is true."""
        return tuple(self.samples[place].image for place in np.flatnonzero(chosen).tolist())

    def without_regularisation(self) -> Pictures:
        """Those of the subject itself, without small copies."""
        own = np.array([not sample.regularising for sample in self.samples], bool)
        found = Pictures()
        found.samples = [self.samples[place] for place in np.flatnonzero(own).tolist()]
        found._rows = self._rows[: len(self)][own]
        return found

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _keep(self, place: int, small: np.ndarray) -> None:
        try:
            if place >= _IN_MEMORY and self._write(place, small.tobytes()) == _SMALL_BYTES:
                return
        except OSError:
            # A full disk costs memory, not the comparison.
            pass
        self._kept[place] = small

    def _write(self, place: int, data: bytes) -> int | None:
        if self._file is None:
            self._file = TemporaryFile(buffering=0)  # noqa: SIM115
        self._file.seek(place * _SMALL_BYTES)
        return self._file.write(data)
