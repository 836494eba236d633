"""Taggers as ONNX files, like the WD14 family: a picture in, a probability a tag out.

The tags are in a CSV file beside the model: `NAME.csv` or `selected_tags.csv`, with the columns `name` and perhaps
`category` (0 general, 4 character, 9 rating). A `.txt` file with one tag a line works too.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lib_trainer.captioning.captioner import missing_weights
from lib_trainer.errors import MissingPackage, UserError
from lib_trainer.utils.booru_tags import spelled_out

ENDING = ".onnx"
_RATING = "9"


def find_taggers(folders: Sequence[Path]) -> list[Path]:
    """Every ONNX file in these folders and one level below that has a list of tags beside it."""
    found = {path for folder in folders for pattern in (f"*{ENDING}", f"*/*{ENDING}") for path in folder.glob(pattern)}
    return sorted(path for path in found if tags_file(path) is not None)


def tags_file(model: Path) -> Path | None:
    """The list of tags beside a model."""
    names = (f"{model.stem}.csv", "selected_tags.csv", "tags.csv", f"{model.stem}.txt", "tags.txt")
    return next((path for name in names if (path := model.with_name(name)).is_file()), None)


class OnnxTagger:
    """A `Captioner`. The file is opened for the first picture.

    Args:
        underscores: tags stay `blue_eyes`; else they are spelled out.
    """

    def __init__(self, model: Path, *, underscores: bool = False) -> None:
        self.label = model.parent.name if model.stem == "model" else model.stem
        self._model, self._underscores = model, underscores
        self._session: Any = None
        self._tags: list[str | None] = []

    def caption(self, picture: Image.Image, threshold: float) -> str:
        session = self._open()
        wanted = session.get_inputs()[0]
        pixels = prepared(picture, wanted.shape)
        scores = np.asarray(session.run(None, {wanted.name: pixels})[0]).reshape(-1)
        if len(scores) != len(self._tags):
            text = f"{self._model.name} gives {len(scores)} values, and its list has {len(self._tags)} tags."
            raise UserError(text, "Put the list that belongs to the model beside it.")
        # Some models end in logits.
        scores = 1 / (1 + np.exp(-scores)) if scores.min() < 0 or scores.max() > 1 else scores
        order = np.argsort(-scores)
        return ", ".join(tag for index in order if scores[index] >= threshold and (tag := self._tags[index]))

    def _open(self) -> Any:
        if self._session is not None:
            return self._session
        listed = tags_file(self._model)
        if not self._model.is_file() or listed is None:
            raise missing_weights(self.label, self._model if listed else self._model.with_suffix(".csv"))
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingPackage("onnxruntime", f"The tagger {self.label}") from error
        self._tags = [tag and (tag if self._underscores else spelled_out(tag)) for tag in read_tags(listed)]
        try:
            # Only the CPU: the GPU belongs to the WebUI's models.
            self._session = onnxruntime.InferenceSession(str(self._model), providers=["CPUExecutionProvider"])
        except Exception as error:
            # onnxruntime's errors have no common class but Exception.
            raise UserError(
                f"{self._model.name} cannot be opened: {str(error)[:200]}.", "Download it again."
            ) from error
        return self._session


def read_tags(path: Path) -> list[str | None]:
    """The tags in the model's order; None for a rating, which no caption needs. Raises UserError."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            return list(_rows(stream, is_csv=path.suffix.lower() == ".csv"))
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"The tags in {path.name} cannot be read: {error}.", "Download the list again.") from error


def _rows(stream: Any, *, is_csv: bool) -> Iterator[str | None]:
    if not is_csv:
        yield from (line.strip() or None for line in stream)
        return
    for row in csv.DictReader(stream):
        if "name" not in row:
            raise ValueError("it has no column “name”")
        yield None if row.get("category") == _RATING else row["name"]


def prepared(picture: Image.Image, shape: Sequence[Any]) -> np.ndarray:
    """The input of a tagger: float32, (1, H, W, 3) in BGR 0…255 as WD14 wants it, or (1, 3, H, W) in RGB 0…1."""
    channels_first = shape[1] == 3
    side = next((size for size in (shape[2], shape[1]) if isinstance(size, int) and size > 3), 448)
    # Padded to a square with white, as these models were trained.
    longest = max(picture.size)
    square = Image.new("RGB", (longest, longest), "white")
    square.paste(picture, ((longest - picture.width) // 2, (longest - picture.height) // 2))
    pixels = np.asarray(square.resize((side, side), Image.Resampling.BICUBIC), dtype=np.float32)
    if channels_first:
        return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None] / 255)
    return np.ascontiguousarray(pixels[None, :, :, ::-1])
