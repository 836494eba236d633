"""The loss curve of a run on the disk: `losses.csv`, a line a step."""

from __future__ import annotations

import csv
import logging
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from lib_trainer.events import Step
from lib_trainer.utils.atomic_file import replace_file

LOSS_FILE = "losses.csv"
COLUMNS = ("step", "epoch", "loss", "learning_rate", "seconds")
_log = logging.getLogger(__name__)


class LossFile:
    """The losses of the run in `folder`. A full disk is logged and fails no run."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOSS_FILE
        self._lines: TextIO | None = None

    def read(self) -> list[tuple[int, float, float]]:
        """(step, loss, learning rate) of every step that is written."""
        return [(int(row[0]), float(row[2]), float(row[3])) for row in self._rows()]

    def continue_after(self, step: int) -> None:
        """Continues after the row of `step`; later rows, of steps that will be trained again, are dropped."""
        # A crash between a step and the next state leaves rows ahead of the state.
        rows = [row for row in self._rows() if int(row[0]) <= step]
        text = "".join(",".join(row) + "\n" for row in (COLUMNS, *rows))
        try:
            replace_file(self._path, text.encode())
            # Flushed line by line: the resume state must never be ahead of the curve.
            self._lines = self._path.open("a", encoding="utf-8", newline="", buffering=1)
        except OSError as error:
            _log.warning("%s cannot be written: %s", self._path, error)

    def add(self, step: Step) -> None:
        if self._lines is None:
            return
        # repr keeps every digit: a resumed curve must equal an unbroken one.
        row = (step.number, step.epoch, repr(step.loss), repr(step.learning_rate), f"{step.seconds:.4f}")
        try:
            self._lines.write(",".join(map(str, row)) + "\n")
        except OSError as error:
            _log.warning("%s can no longer be written: %s", self._path, error)
            self._lines = None

    def close(self) -> None:
        if self._lines is not None:
            with suppress(OSError, ValueError):
                self._lines.close()

    def _rows(self) -> list[list[str]]:
        """The rows below the head, without a last one that a crash cut off."""
        try:
            with self._path.open(encoding="utf-8", newline="") as file:
                rows = list(csv.reader(file))
        except (OSError, UnicodeDecodeError, csv.Error):
            return []
        return [row for row in rows[1:] if len(row) == len(COLUMNS) and row[0].isdigit() and row[-1]]
