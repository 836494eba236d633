"""Pictures that were dropped onto the page, put into a dataset folder of the WebUI's data folder.

Files come from a browser: only names of pictures and captions are taken, no name leads out of the folder, and an
archive is unpacked by the bytes that come out of it, whatever it claims.
"""

from __future__ import annotations

import re
import unicodedata
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from lib_trainer.dataset.captions import MAX_CAPTION_BYTES
from lib_trainer.dataset.images import MAX_FILE_BYTES, PICTURE_ENDINGS
from lib_trainer.errors import NotWritten, UserError
from lib_trainer.utils.atomic_file import replace_with

MOST_FILES, MOST_BYTES = 10_000, 2**33
_TEXT_ENDINGS = (".txt", ".caption")
_REPEATS = 10
_CHUNK = 2**20
# Names that Windows keeps for devices, in any folder and with any ending.
_DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\.|$)", re.IGNORECASE)


@dataclass(frozen=True)
class Dropped:
    """Where dropped files went.

    Attributes:
        folder: the dataset's, to train on.
        pictures, captions: how many files of each were added.
        refused: names that were not taken, each with its reason.
    """

    folder: Path
    pictures: int
    captions: int
    refused: tuple[str, ...]


def datasets_dir(data_dir: Path) -> Path:
    """Where datasets lie in a WebUI's data folder."""
    return data_dir / "train_lora" / "datasets"


def take_dropped(files: Iterable[Path], data_dir: Path, name: str) -> Dropped:
    """Copies pictures and captions, and those in zip files, into `train_lora/datasets/NAME/10_NAME/`.

    A file whose name is taken there gets a free one; nothing is written over.

    Args:
        name: of the dataset, usually its trigger word.

    Raises:
        UserError: no file is a picture or a caption, or there are too many.
        NotWritten: the disk is full or cannot be written.
    """
    word = safe_name(name) or "pictures"
    root = datasets_dir(data_dir) / word
    target = root / f"{_REPEATS}_{word}"
    taking = _Taking(target)
    for file in files:
        taking.take(file)
    if not taking.pictures and not taking.captions:
        reasons = "; ".join(taking.refused[:3]) or "no file came"
        raise UserError(f"Nothing was added: {reasons}.", f"Drop {', '.join(PICTURE_ENDINGS[:5])} or zip files.")
    return Dropped(root, taking.pictures, taking.captions, tuple(taking.refused))


def safe_name(name: str) -> str:
    """A file name that every system takes, and that stands for itself; "" where nothing of it is left."""
    text = unicodedata.normalize("NFC", name.encode("utf-8", "replace").decode())
    kept = "".join("_" if char in '<>:"/\\|?*' or unicodedata.category(char)[0] == "C" else char for char in text)
    short = kept.strip(" .")[:100].strip(" .")
    return f"_{short}" if _DEVICES.match(short) else short


class _Taking:
    """Files that are taken one after the other; captions go with their picture when its name was taken."""

    def __init__(self, target: Path) -> None:
        self._target, self._bytes, self._free = target, 0, {}
        self.pictures = self.captions = 0
        self.refused: list[str] = []

    def take(self, file: Path) -> None:
        if file.suffix.lower() != ".zip":
            self._take_one(file.name, file)
            return
        try:
            with zipfile.ZipFile(file) as archive:
                for entry in _entries(archive):
                    self._take_one(PurePosixPath(entry.filename.replace("\\", "/")).name, archive, entry)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
            # RuntimeError: it asks for a password. NotImplementedError: an unknown compression.
            self.refused.append(f"{file.name[:80]}: it cannot be unpacked ({error})")

    def _take_one(self, name: str, place: Path | zipfile.ZipFile, entry: zipfile.ZipInfo | None = None) -> None:
        stem, ending = safe_name(PurePosixPath(name).stem), PurePosixPath(name).suffix.lower()
        if not stem or ending not in PICTURE_ENDINGS + _TEXT_ENDINGS:
            self.refused.append(f"{name[:80]}: neither a picture nor a caption")
            return
        if self.pictures + self.captions >= MOST_FILES:
            raise UserError(f"More than {MOST_FILES} files were dropped.", "Name their folder instead.")
        limit = MAX_CAPTION_BYTES if ending in _TEXT_ENDINGS else MAX_FILE_BYTES
        path = self._target / f"{self._free_stem(stem, ending)}{ending}"
        try:
            source = place.open("rb") if isinstance(place, Path) else place.open(entry)
            with source:
                replace_with(path, lambda part: self._copy(source, part, limit))
        except _TooLarge:
            self.refused.append(f"{name[:80]}: larger than {limit // 1024} KiB")
            return
        except OSError as error:
            hint = f"Free space in {self._target}, or name a folder instead."
            raise NotWritten(f"{name[:80]} could not be written: {error.strerror or error}.", hint) from error
        self.pictures += ending in PICTURE_ENDINGS
        self.captions += ending in _TEXT_ENDINGS

    def _free_stem(self, stem: str, ending: str) -> str:
        """A stem under which neither file is there; a picture and its caption get the same one."""
        key = stem, ending in _TEXT_ENDINGS
        other = self._free.get((stem, not key[1]))
        if key not in self._free and other is not None:
            self._free[key] = other
            return other
        free, number = stem, 1
        while any((self._target / f"{free}{end}").exists() for end in PICTURE_ENDINGS + _TEXT_ENDINGS):
            number += 1
            free = f"{stem}-{number}"
        self._free[key] = free
        return free

    def _copy(self, source: BinaryIO, part: Path, limit: int) -> None:
        written = 0
        try:
            with part.open("wb") as file:
                # By chunks: what an archive claims of its sizes is not believed.
                while chunk := source.read(_CHUNK):
                    written += len(chunk)
                    self._bytes += len(chunk)
                    if written > limit:
                        raise _TooLarge
                    if self._bytes > MOST_BYTES:
                        text = f"More than {MOST_BYTES // 2**20} MiB were dropped."
                        raise UserError(text, "Name their folder instead.")
                    file.write(chunk)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


class _TooLarge(Exception):
    """More bytes than this kind of file may have."""


def _entries(archive: zipfile.ZipFile) -> Iterator[zipfile.ZipInfo]:
    """The files of an archive, pictures before captions; not what macOS adds."""
    files = [entry for entry in archive.infolist() if not entry.is_dir() and "__MACOSX" not in entry.filename]
    if len(files) > MOST_FILES:
        raise UserError(f"The archive holds {len(files)} files; {MOST_FILES} are taken at once.", "Divide it.")
    return iter(sorted(files, key=lambda entry: entry.filename.lower().endswith(_TEXT_ENDINGS)))
