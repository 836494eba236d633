"""What a person has decided about pictures, kept in `.train_lora/` beside them: the pictures stay as they are.

`pictures.json` is plain JSON: `{"version": 1, "pictures": {"a.png": {"excluded": true, "crop": [0.1, 0, 0.9, 1]}}}`.
A crop is left, top, right, bottom as shares of the picture as seen. Folders travel, so its content is not trusted.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lib_trainer.errors import NotWritten
from lib_trainer.utils.atomic_file import write_atomically
from lib_trainer.utils.limited_read import read_at_most

EDITS_DIR, EDITS_FILE = ".train_lora", "pictures.json"
# Left, top, right, bottom as shares of the picture.
Crop = tuple[float, float, float, float]
_MAX_BYTES = 2**24
_LOCK_SECONDS = 10
# A sliver would be enlarged to nothing but blur.
_SMALLEST_SIDE = 0.05


@dataclass(frozen=True)
class PictureEdit:
    """What is decided about one picture.

    Attributes:
        excluded: runs leave it out.
        crop: runs see this part; None for the whole.
    """

    excluded: bool = False
    crop: Crop | None = None


@dataclass(frozen=True)
class FolderEdits:
    """What is decided about the pictures of one folder.

    Attributes:
        pictures: by file name.
        regularisation: the folder holds pictures of the class, not of the subject.
        problem: why the file is not used; "" where it is, or there is none.
    """

    pictures: Mapping[str, PictureEdit] = field(default_factory=dict)
    regularisation: bool = False
    problem: str = ""

    def of(self, name: str) -> PictureEdit:
        return self.pictures.get(name, PictureEdit())


def read_edits(folder: Path) -> FolderEdits:
    """What `.train_lora/pictures.json` says. It never raises: what is wrong with the file is its `problem`."""
    path = folder / EDITS_DIR / EDITS_FILE
    try:
        data = read_at_most(path, _MAX_BYTES)
    except FileNotFoundError:
        return FolderEdits()
    except OSError as error:
        return FolderEdits(problem=error.strerror or str(error))
    if data is None:
        return FolderEdits(problem=f"the file is larger than {_MAX_BYTES // 2**20} MiB")
    try:
        values = json.loads(data)
        pictures = {str(name): _edit_of(value) for name, value in values["pictures"].items()}
        return FolderEdits(pictures, values.get("regularisation") is True)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        return FolderEdits(problem=f"it is not a list of pictures ({type(error).__name__})")


def change_edits(
    folder: Path, changes: Mapping[str, PictureEdit], *, regularisation: bool | None = None
) -> FolderEdits:
    """Decides anew about these pictures; what is decided about others stays, also by another program meanwhile.

    Raises:
        NotWritten: the folder is read-only, the disk full, or a file there is not one of ours; nothing is changed.
    """
    with locked(folder):
        known = read_edits(folder)
        if known.problem:
            path = folder / EDITS_DIR / EDITS_FILE
            # Writing over it would lose what somebody may still mend.
            raise NotWritten(f"{path} cannot be used: {known.problem}.", "Mend or remove it.")
        pictures = {**known.pictures, **changes}
        new = FolderEdits(
            {name: edit for name, edit in sorted(pictures.items()) if edit != PictureEdit()},
            known.regularisation if regularisation is None else regularisation,
        )
        text = json.dumps(_described(new), ensure_ascii=True, indent=1)
        write_atomically(folder / EDITS_DIR / EDITS_FILE, text.encode())
        return new


def exclude_pictures(root: Path, names: Iterable[str]) -> list[str]:
    """Takes pictures of the dataset `root` out of later runs, and returns those that were there; crops stay.

    Args:
        names: as `images.path_below` gives them.

    Raises:
        NotWritten: as `change_edits`.
    """
    folders: dict[Path, list[str]] = {}
    found = [name for name in names if (root / name).is_file()]
    for name in found:
        folders.setdefault((root / name).parent, []).append(Path(name).name)
    for folder, inside in folders.items():
        known = read_edits(folder)
        change_edits(folder, {name: replace(known.of(name), excluded=True) for name in inside})
    return found


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """While entered, no other page or program of ours changes this folder. Raises NotWritten."""
    place = folder / EDITS_DIR
    try:
        place.mkdir(exist_ok=True)
        lock = FileLock(place / "lock", timeout=_LOCK_SECONDS)
        lock.acquire()
    except Timeout as error:
        message = f"Another program has been changing {folder} for {_LOCK_SECONDS} seconds."
        raise NotWritten(message, "Try again when it is done.") from error
    except OSError as error:
        message = f"Nothing can be written into {folder}: {error.strerror or error}."
        raise NotWritten(message, "Make it writable, or copy the pictures to another folder.") from error
    try:
        yield
    finally:
        lock.release()


def crop_px(crop: Crop | None, width_px: int, height_px: int) -> tuple[int, int, int, int] | None:
    """Left, top, right, bottom in pixels of a picture of this size; None for the whole."""
    if crop is None:
        return None
    left, top = math.floor(crop[0] * width_px), math.floor(crop[1] * height_px)
    right, bottom = math.ceil(crop[2] * width_px), math.ceil(crop[3] * height_px)
    return left, top, max(left + 1, right), max(top + 1, bottom)


def valid_crop(value: Any) -> Crop | None:
    """The crop that four numbers describe, None for the whole picture. Raises ValueError or TypeError."""
    if value is None:
        return None
    left, top, right, bottom = (float(edge) for edge in value)
    inside = 0 <= left < right <= 1 and 0 <= top < bottom <= 1
    if not inside or min(right - left, bottom - top) < _SMALLEST_SIDE:
        raise ValueError(f"{value} is not a part of a picture")
    return None if (left, top, right, bottom) == (0, 0, 1, 1) else (left, top, right, bottom)


def _edit_of(value: Any) -> PictureEdit:
    return PictureEdit(value.get("excluded") is True, valid_crop(value.get("crop")))


def _described(edits: FolderEdits) -> dict[str, Any]:
    pictures: dict[str, dict[str, Any]] = {}
    for name, edit in edits.pictures.items():
        pictures[name] = {"excluded": True} if edit.excluded else {}
        if edit.crop is not None:
            pictures[name]["crop"] = [round(edge, 5) for edge in edit.crop]
    marked = {"regularisation": True} if edits.regularisation else {}
    return {"version": 1, **marked, "pictures": pictures}
