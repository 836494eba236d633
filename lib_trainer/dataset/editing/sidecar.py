"""Caption files, changed without losing anything: the first original is kept, a change on the disk is noticed."""

from __future__ import annotations

import hashlib
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from lib_trainer.dataset.captions import MAX_CAPTION_BYTES, read_caption_file
from lib_trainer.dataset.edits import EDITS_DIR, locked
from lib_trainer.errors import NotWritten, UserError
from lib_trainer.utils.atomic_file import write_atomically

ORIGINALS_DIR, _NO_FILE = "originals", ".absent"


@dataclass(frozen=True)
class Caption:
    """A caption file as it stands on the disk.

    Attributes:
        text: "" without a file.
        version: of its bytes; "" without a file. A change is made to a version, and refused for another one.
        problem: why it cannot be edited here; "" where it can.
    """

    text: str = ""
    version: str = ""
    problem: str = ""


class CaptionConflict(UserError):
    """The caption has changed since it was read; `current` is how it stands now."""

    def __init__(self, path: Path, current: Caption) -> None:
        self.current = current
        super().__init__(f"{path.name} was changed meanwhile by another page or program.", "Look at both versions.")


def caption_file(image: Path, endings: tuple[str, ...]) -> Path:
    """The caption file of a picture: the first that exists, else the one to make.

    Args:
        endings: of `captions.caption_endings`.
    """
    paths = [image.with_suffix(ending) for ending in endings]
    return next((path for path in paths if path.exists()), paths[0])


def read_sidecar(path: Path) -> Caption:
    """A caption file. It never raises: what is wrong with it is its `problem`."""
    if path.is_symlink():
        # Writing would replace the link, or change a file of somewhere else.
        return Caption(problem="the caption file is a link")
    try:
        found = read_caption_file(path)
    except FileNotFoundError:
        return Caption()
    return Caption(clean_text(found.text), hashlib.sha256(found.data).hexdigest(), found.problem)


def write_sidecar(path: Path, text: str, version: str) -> Caption:
    """Writes a caption file that stands at `version`, and returns it as it stands then.

    Before the first change the file's bytes are copied to `.train_lora/originals`, or it is noted that there was none.

    Raises:
        CaptionConflict: it stands at another version; nothing is written.
        NotWritten: the folder is read-only or the disk full; the old file is there, whole.
        UserError: the text is too long, or the file is one that is not edited here.
    """
    data = clean_text(text).encode()
    if len(data) > MAX_CAPTION_BYTES:
        message = f"The caption of {path.stem} has {len(data) / 1024:.0f} KiB; {MAX_CAPTION_BYTES // 1024} are read."
        raise UserError(message, "Shorten it: training reads 75 tokens at a time.")
    with locked(path.parent):
        current = read_sidecar(path)
        if current.problem:
            raise UserError(f"{path.name} is not changed: {current.problem}.", "Save it as UTF-8 text first.")
        if current.version != version:
            # Another page or program was faster: the person decides, with both texts in view.
            raise CaptionConflict(path, current)
        if current.text == text:
            return current
        _keep_original(path)
        write_atomically(path, data)
        return read_sidecar(path)


def remove_sidecar(path: Path, version: str) -> None:
    """Removes a caption file that stands at `version`. Raises as `write_sidecar`."""
    with locked(path.parent):
        current = read_sidecar(path)
        if current.version != version:
            raise CaptionConflict(path, current)
        _keep_original(path)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise NotWritten(
                f"{path.name} cannot be removed: {error.strerror or error}.", "Make it writable."
            ) from error


def restore_original(path: Path) -> Caption:
    """Puts the caption back as it stood before anybody changed it here. Raises UserError without an original."""
    kept, absent = _original(path)
    with locked(path.parent):
        if absent.exists():
            path.unlink(missing_ok=True)
        elif kept.exists():
            write_atomically(path, kept.read_bytes())
        else:
            raise UserError(f"{path.name} was not changed here.", "There is nothing to put back.")
        return read_sidecar(path)


def clean_text(text: str) -> str:
    """Text without control characters and unpaired surrogates; lines end in a line feed, and none is blank."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    spaced = ("".join(" " if unicodedata.category(char) in ("Cc", "Cs") else char for char in line) for line in lines)
    return "\n".join(line.strip() for line in spaced if line.strip())


def _keep_original(path: Path) -> None:
    kept, absent = _original(path)
    # The first one alone: later ones are our own.
    if kept.exists() or absent.exists():
        return
    if path.exists():
        write_atomically(kept, path.read_bytes())
    else:
        write_atomically(absent, b"")


def _original(path: Path) -> tuple[Path, Path]:
    folder = path.parent / EDITS_DIR / ORIGINALS_DIR
    return folder / path.name, folder / f"{path.name}{_NO_FILE}"
