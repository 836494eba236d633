"""The pictures of one folder: each with its caption, size and crop, found by reading names and headers only."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from lib_trainer.config.recipe import DatasetConfig
from lib_trainer.dataset.captions import caption_endings, caption_of, expand, put_first, read_captions
from lib_trainer.dataset.edits import EDITS_DIR, EDITS_FILE, Crop, crop_px, read_edits
from lib_trainer.dataset.folders import NO_REPEATS, PictureFolder, Skipped, is_folder, is_inside, list_folder
from lib_trainer.dataset.images import (
    MAX_FILE_BYTES,
    OTHER_PICTURE_ENDINGS,
    PICTURE_ENDINGS,
    TOO_LARGE,
    UnreadablePicture,
    read_size,
)
from lib_trainer.dataset.masks import is_mask_name
from lib_trainer.errors import UserError

LEADS_OUT = "a link that leads out of the folder, or nowhere"


@dataclass(frozen=True)
class Sample:
    """One picture to train on.

    Attributes:
        image: the file.
        caption: the text beside it, or the trigger word where there is none.
        other_captions: of the same file; a run draws among all of them.
        lines: captions that its file has, whether they are drawn or not; 0 without a usable file.
        repeats: how often an epoch draws it.
        width_px, height_px: as seen, with EXIF rotation applied.
        captioned: whether the caption comes from a text file.
        crop_px: left, top, right, bottom of the part that is trained on, as seen; None for the whole. The size is
            that of the part, `whole_px` that of the picture.
        regularising: a picture of the class, of `reg_data_dir` or in a folder that is marked as regularisation.
    """

    image: Path
    caption: str
    repeats: int
    width_px: int
    height_px: int
    captioned: bool
    other_captions: tuple[str, ...] = ()
    lines: int = 0
    crop_px: tuple[int, int, int, int] | None = None
    whole_px: tuple[int, int] | None = None
    regularising: bool = False

    @property
    def captions(self) -> tuple[str, ...]:
        """All captions that a run draws among."""
        return (self.caption, *self.other_captions)


def folder_samples(
    folder: PictureFolder, root: Path, config: DatasetConfig, skipped: list[Skipped], *, of_class: bool = False
) -> Iterator[tuple[Sample, bool]]:
    """The pictures of one folder, each with whether a person has excluded it.

    Args:
        root: the dataset's folder, out of which no link may lead.
        skipped: what else the folder holds is added here.
        of_class: they are regularisation pictures, whether their folder is marked or not.
    """
    edits = read_edits(folder.path)
    if edits.problem:
        reason = f"{edits.problem}; exclusions and crops do not act"
        skipped.append(Skipped(folder.path / EDITS_DIR / EDITS_FILE, reason))
    regularising = of_class or edits.regularisation
    # The trigger word is the subject's: captions of the class must not have it.
    worded = replace(config, trigger_word="", trigger_word_first=False) if regularising else config
    for sample in _listed(folder, root, worded, skipped):
        edit = edits.of(sample.image.name)
        yield replace(_cropped(sample, edit.crop), regularising=regularising), edit.excluded


def _cropped(sample: Sample, crop: Crop | None) -> Sample:
    box = crop_px(crop, sample.width_px, sample.height_px)
    if box is None:
        return sample
    whole = sample.width_px, sample.height_px
    return replace(sample, width_px=box[2] - box[0], height_px=box[3] - box[1], crop_px=box, whole_px=whole)


def _listed(folder: PictureFolder, root: Path, config: DatasetConfig, skipped: list[Skipped]) -> Iterator[Sample]:
    """The pictures of one folder, whole."""
    entries = list_folder(folder.path)
    if folder.repeats == 0:
        skipped.append(Skipped(folder.path, NO_REPEATS))
        return
    # Endings in lower case: cameras write .JPG, and people .TXT.
    by_name = {_split_name(entry.name): entry for entry in entries}
    stems = {stem for stem, ending in by_name if ending in PICTURE_ENDINGS}
    for entry in entries:
        stem, ending = _split_name(entry.name)
        path = Path(entry.path)
        if ending in OTHER_PICTURE_ENDINGS:
            skipped.append(Skipped(path, f"{ending[1:]} pictures are not read; save it as png or jpg"))
        if ending not in PICTURE_ENDINGS:
            continue
        if is_mask_name(stem, stems):
            continue
        problem = _picture_problem(entry, root)
        if problem:
            skipped.append(Skipped(path, problem))
            continue
        try:
            width_px, height_px = read_size(path)
        except UnreadablePicture as error:
            skipped.append(Skipped(path, error.reason))
            continue
        # Only names in this listing count, so no path in a name can lead elsewhere.
        sidecars = (by_name[stem, suffix] for suffix in caption_endings(config) if (stem, suffix) in by_name)
        lines = _captions_in(next(sidecars, None), root, skipped)
        word = config.trigger_word or folder.trigger_words
        captions = tuple(expand(text, word, folder.trigger_words) for text in caption_of(lines, config)) or (word,)
        if config.trigger_word_first and word:
            captions = tuple(put_first(word, caption) for caption in captions)
        yield Sample(
            path, captions[0], folder.repeats, width_px, height_px, bool(lines), captions[1:], lines=len(lines)
        )


def _picture_problem(entry: os.DirEntry[str], root: Path) -> str:
    """Why a file with a picture's name is not opened, "" where it is."""
    try:
        size_bytes = entry.stat().st_size
    except OSError:
        size_bytes = -1
    if size_bytes == 0:
        return _file_problem(entry, root) or "the file is empty"
    return _file_problem(entry, root) or (TOO_LARGE if size_bytes > MAX_FILE_BYTES else "")


def _captions_in(entry: os.DirEntry[str] | None, root: Path, skipped: list[Skipped]) -> tuple[str, ...]:
    """The lines of a caption file, () without a usable one."""
    if entry is None:
        return ()
    problem = _file_problem(entry, root)
    try:
        if not problem:
            return read_captions(Path(entry.path))
    except UserError as error:
        problem = error.message
    skipped.append(Skipped(Path(entry.path), f"{problem}; its picture trains without it"))
    return ()


def _file_problem(entry: os.DirEntry[str], root: Path) -> str:
    """Why a name is not a file of this folder, "" where it is."""
    if entry.is_symlink() and not is_inside(Path(entry.path), root):
        return LEADS_OUT
    if is_folder(entry):
        return "a folder, not a file"
    try:
        # Reading a pipe or a device could block for ever.
        return "" if entry.is_file() else "not a file"
    except OSError as error:
        return error.strerror or str(error)


def _split_name(name: str) -> tuple[str, str]:
    stem, ending = os.path.splitext(name)
    return stem, ending.lower()
