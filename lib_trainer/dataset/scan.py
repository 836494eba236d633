"""What a dataset folder holds, found by reading names and headers only."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from lib_trainer.config.recipe import DatasetConfig, field_of
from lib_trainer.dataset.captions import caption_endings, caption_of, expand, has_word, put_first, read_captions
from lib_trainer.dataset.edits import EDITS_DIR, EDITS_FILE, Crop, FolderEdits, crop_px, read_edits
from lib_trainer.dataset.folders import (
    NO_REPEATS,
    PictureFolder,
    Skipped,
    existing_folder,
    is_folder,
    is_inside,
    list_folder,
    no_pictures,
    picture_folders,
)
from lib_trainer.dataset.images import (
    MAX_FILE_BYTES,
    OTHER_PICTURE_ENDINGS,
    PICTURE_ENDINGS,
    TOO_LARGE,
    UnreadablePicture,
    read_size,
    shown_name,
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
        regularising: a picture of the class, in a folder that is marked as regularisation.
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


@dataclass(frozen=True)
class Scan:
    """What a folder holds.

    Attributes:
        samples: the pictures, ordered by path.
        skipped: files and folders that look like part of the dataset and are not used.
        trigger_word: the configured one, else the name after the number of the first folder that has one.
        excluded: pictures that a person has taken out of the run.
        notices: sentences on the captions that a person should know before training.
    """

    samples: tuple[Sample, ...]
    skipped: tuple[Skipped, ...]
    trigger_word: str
    notices: tuple[str, ...] = ()
    excluded: tuple[Sample, ...] = ()


def scan_folder(config: DatasetConfig) -> Scan:
    """The pictures of `train_data_dir`, with captions and sizes; pixels are not decoded.

    As in kohya's tools a folder named like `10_jeff_person` repeats its pictures 10 times, and its name
    replaces missing captions where no trigger word is set. `train_data_dir` may hold such folders, be one, or be plain
    (1 repeat). Names that start with a dot are skipped; links that lead out of the folder are not followed.

    Raises:
        UserError: there is no such folder, it holds no pictures, or none of them can be used.
    """
    root = existing_folder(config.train_data_dir)
    folders, skipped = picture_folders(root)
    samples, excluded = [], []
    for folder in folders:
        edits = _edits_of(folder, skipped)
        for sample in _samples_of(folder, root, config, skipped):
            edit = edits.of(sample.image.name)
            sample = replace(_cropped(sample, edit.crop), regularising=edits.regularisation)
            (excluded if edit.excluded else samples).append(sample)
    if excluded and not samples:
        raise UserError(f"All {len(excluded)} pictures in {root} are excluded.", "Include some again.")
    if not samples:
        raise nothing_usable(root, skipped)
    by_folder = next((folder.trigger_words for folder in folders if folder.trigger_words), "")
    word = config.trigger_word or by_folder
    return Scan(tuple(samples), tuple(skipped), word, tuple(_caption_notices(samples, word, config)), tuple(excluded))


def _edits_of(folder: PictureFolder, skipped: list[Skipped]) -> FolderEdits:
    edits = read_edits(folder.path)
    if edits.problem:
        skipped.append(
            Skipped(folder.path / EDITS_DIR / EDITS_FILE, f"{edits.problem}; exclusions and crops do not act")
        )
    return edits


def _cropped(sample: Sample, crop: Crop | None) -> Sample:
    box = crop_px(crop, sample.width_px, sample.height_px)
    if box is None:
        return sample
    whole = sample.width_px, sample.height_px
    return replace(sample, width_px=box[2] - box[0], height_px=box[3] - box[1], crop_px=box, whole_px=whole)


def _samples_of(folder: PictureFolder, root: Path, config: DatasetConfig, skipped: list[Skipped]) -> Iterator[Sample]:
    """The samples of one folder; what else it holds is added to `skipped`."""
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


def _caption_notices(samples: list[Sample], word: str, config: DatasetConfig) -> Iterator[str]:
    """What a run would learn otherwise than a person expects, by its captions alone."""
    several = sum(sample.lines > 1 for sample in samples)
    if several and config.caption_lines == "first":
        label = field_of("caption_lines").metadata["label"]
        yield (
            f"{several} caption file{'s have' if several > 1 else ' has'} several lines, of which the first is used;"
            f" “{label}” takes a random one or all."
        )
    captions = [caption for sample in samples for caption in sample.captions]
    if not word and not any(captions):
        yield (
            "There is neither a trigger word nor a caption: the LoRA will change every picture a little, and no word"
            " calls what it learned. Enter a trigger word."
        )
    elif word and not any(has_word(word, caption) for caption in captions):
        label = field_of("trigger_word_first").metadata["label"]
        yield (
            f"The trigger word “{word}” is in no caption: the run learns what the captions say, and the word will"
            f" call nothing. Turn on “{label}”, or write it into them."
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


def nothing_usable(root: Path, skipped: list[Skipped]) -> UserError:
    """The error for a folder whose pictures are all skipped."""
    pictures = [item for item in skipped if item.path.suffix.lower() in PICTURE_ENDINGS + OTHER_PICTURE_ENDINGS]
    unused = [shown_name(item.path) for item in skipped if item.reason == NO_REPEATS]
    if unused and not pictures:
        text = f"The name of {' and '.join(unused)} asks for 0 repeats, so that no picture is left."
        return UserError(text, "The number before the first _ is the repeats: rename it, for example to 10_name.")
    if not pictures:
        return no_pictures(root)
    named = "; ".join(f"{shown_name(item.path)}: {item.reason}" for item in pictures[:5]) + " …" * (len(pictures) > 5)
    hint = "Save them again as png or jpg."
    if all(item.reason == LEADS_OUT for item in pictures):
        hint = "Links are followed within the folder only: copy the pictures into it."
    return UserError(f"None of the pictures in {root} can be used ({len(pictures)} found): {named}.", hint)
