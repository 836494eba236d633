"""The folders that training images come from, and the error when there are none."""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from lib_trainer.dataset.images import OTHER_PICTURE_ENDINGS, PICTURE_ENDINGS, shown_name
from lib_trainer.errors import UserError

MAX_REPEATS = 10_000
MASKS_DIR = "masks"
NO_REPEATS = "its name asks for 0 repeats"
_REPEATS = re.compile(r"([0-9]+)_(.*)", re.DOTALL)
_INSIDE_NUMBERED = "the folder that it lies in has pictures of its own; move it beside that one to train both"
# How deep, and among how many folders, pictures are looked for that lie in the wrong place.
_SEARCH_DEPTH, _SEARCH_FOLDERS = 3, 200


@dataclass(frozen=True)
class Skipped:
    """Something in the folder that is not used, and why."""

    path: Path
    reason: str


@dataclass(frozen=True)
class PictureFolder:
    """A folder of pictures, and what its name says: `10_jeff_person` is 10 repeats of `jeff_person`."""

    path: Path
    repeats: int
    trigger_words: str


def existing_folder(named: str) -> Path:
    """The folder that a person named. Raises UserError where there is none, with what is there instead."""
    # Paths copied from a file manager come in quotation marks.
    text = named.strip().strip("\"'")
    if not text:
        raise UserError("No folder of pictures is named.", "Name the folder that holds the pictures.")
    try:
        folder = Path(text).expanduser()
        if folder.is_dir():
            return folder
        if folder.exists():
            raise UserError(f"{text} is a file, not a folder.", f"Name the folder that holds it: {folder.parent}")
        # The nearest existing parent helps to find a typing error.
        above = next((parent for parent in folder.parents if parent.is_dir()), None)
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"The folder {text!r} cannot be opened: {error}.", "Check its name and permissions.") from error
    hint = "Check the name" + (f": {above} holds {describe_contents(above)}." if above else ".")
    raise UserError(f"The folder {text} does not exist.", hint)


def picture_folders(root: Path) -> tuple[list[PictureFolder], list[Skipped]]:
    """The numbered folders in `root`, or `root` itself without any; and what is skipped beside them.

    A numbered `root` with pictures is taken alone: a folder in it that is named like `512_resized` has no repeats to
    say, and would hide the pictures beside it.
    """
    numbered, skipped, own_pictures = [], [], 0
    for entry in list_folder(root):
        path, is_numbered = Path(entry.path), _REPEATS.fullmatch(entry.name) is not None
        if not is_folder(entry):
            # kohya ignores these silently; we say so below.
            own_pictures += _is_picture_name(entry.name)
        elif entry.name == MASKS_DIR:
            # Masks of the pictures beside it.
            continue
        elif not is_inside(path, root):
            skipped.append(Skipped(path, "a link that leads out of the folder"))
        elif not any(_is_picture_name(inner.name) for inner in (list_folder(path) if is_numbered else _peek(path))):
            continue
        elif is_numbered:
            numbered.append(_read_name(path))
        else:
            skipped.append(Skipped(path, "its name does not start with a number of repeats, like 10_name"))
    own_name = _read_name(root)
    if numbered and own_pictures and _REPEATS.fullmatch(root.resolve().name):
        return [own_name], [*skipped, *(Skipped(folder.path, _INSIDE_NUMBERED) for folder in numbered)]
    if numbered and own_pictures:
        text = "pictures beside the numbered folders are not used; move them into one"
        skipped.append(Skipped(root, f"{text} ({own_pictures} found)"))
    return numbered or [own_name], skipped


def list_folder(folder: Path) -> list[os.DirEntry[str]]:
    """What a folder holds, ordered by name, without names that start with a dot. Raises UserError."""
    try:
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        text = f"The folder {folder} cannot be read: {error.strerror or error}."
        raise UserError(text, "Check that it is there and may be read.") from error


def is_inside(path: Path, root: Path) -> bool:
    """Whether `path`, with every link followed, exists within `root`."""
    try:
        return path.resolve(strict=True).is_relative_to(root.resolve())
    except (OSError, RuntimeError):
        return False


def is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def describe_contents(folder: Path) -> str:
    """What a folder holds, in short."""
    entries = _peek(folder)
    folders = [shown_name(Path(entry.path)) for entry in entries if is_folder(entry)]
    endings = Counter(Path(entry.name).suffix.lower() for entry in entries if not is_folder(entry))
    parts = [f"{count} {ending or 'other'} file{'s' * (count > 1)}" for ending, count in endings.most_common(5)]
    if folders:
        parts.append(f"the folder{'s' * (len(folders) > 1)} {', '.join(folders[:8])}{' …' * (len(folders) > 8)}")
    return " and ".join(parts) or "nothing"


def no_pictures(root: Path) -> UserError:
    """The error for a folder in which nothing is named like a picture."""
    hint = "Put jpg, png, webp or bmp pictures into it, or into a folder in it that is named like 10_jeff_person."
    # Common mistakes: naming the folder above `img`, which holds the numbered ones, or one folder too many inside.
    found = _nearest_pictures(root)
    if found:
        above = found.parent
        if _REPEATS.fullmatch(above.name):
            hint = f"They lie in {found}, one level too deep: move them into {above}."
        else:
            hint = f"Name the folder {above if _REPEATS.fullmatch(found.name) else found} instead."
    return UserError(f"There are no pictures in {root}: it holds {describe_contents(root)}.", hint)


def _read_name(folder: Path) -> PictureFolder:
    match = _REPEATS.fullmatch(folder.name or folder.resolve().name)
    if match is None:
        return PictureFolder(folder, 1, "")
    digits, name = match.group(1).lstrip("0") or "0", match.group(2)
    # By length first: int() refuses thousands of digits.
    if len(digits) > 5 or int(digits) > MAX_REPEATS:
        raise UserError(
            f"The folder {shown_name(folder)} asks for {digits[:20]} repeats, more than {MAX_REPEATS}.",
            "The number before the first _ in a folder's name is its repeats: rename it, for example to 10_name.",
        )
    # A name that is not valid UTF-8 must not break captions and metadata.
    return PictureFolder(folder, int(digits), " ".join(name.encode("utf-8", "replace").decode("utf-8").split()))


def _is_picture_name(name: str) -> bool:
    return name.lower().endswith(PICTURE_ENDINGS + OTHER_PICTURE_ENDINGS)


def _peek(folder: Path) -> list[os.DirEntry[str]]:
    """As `list_folder`, empty where the folder cannot be read."""
    try:
        return list_folder(folder)
    except UserError:
        return []


def _nearest_pictures(root: Path) -> Path | None:
    """The folder nearest below `root` that holds pictures; links are not followed."""
    level, looked_at = [root], 0
    for _ in range(_SEARCH_DEPTH):
        below = [Path(entry.path) for folder in level for entry in _peek(folder) if entry.is_dir(follow_symlinks=False)]
        # Somebody may name the root of a disk.
        looked_at += len(below)
        if looked_at > _SEARCH_FOLDERS:
            return None
        for folder in below:
            if any(_is_picture_name(entry.name) for entry in _peek(folder)):
                return folder
        level = below
    return None
