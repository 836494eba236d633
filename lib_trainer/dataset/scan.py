"""What a dataset folder holds, found by reading names and headers only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lib_trainer.config.recipe import DatasetConfig, field_of
from lib_trainer.dataset.captions import has_word
from lib_trainer.dataset.folders import (
    NO_REPEATS,
    PictureFolder,
    Skipped,
    existing_folder,
    no_pictures,
    picture_folders,
)
from lib_trainer.dataset.images import OTHER_PICTURE_ENDINGS, PICTURE_ENDINGS, shown_name
from lib_trainer.dataset.samples import LEADS_OUT, Sample, folder_samples
from lib_trainer.errors import ConfigError, UserError


@dataclass(frozen=True)
class Scan:
    """What a folder holds.

    Attributes:
        samples: the pictures, ordered by path.
        skipped: files and folders that look like part of the dataset and are not used.
        trigger_word: the configured one, else the name after the number of the first folder that has one.
        notices: sentences on the captions that a person should know before training.
        excluded: pictures that a person has taken out of the run.
        reg_folders: those of `reg_data_dir`.
    """

    samples: tuple[Sample, ...]
    skipped: tuple[Skipped, ...]
    trigger_word: str
    notices: tuple[str, ...] = ()
    excluded: tuple[Sample, ...] = ()
    reg_folders: frozenset[Path] = frozenset()


def scan_folder(config: DatasetConfig) -> Scan:
    """The pictures of `train_data_dir` and `reg_data_dir`, with captions and sizes; pixels are not decoded.

    As in kohya's tools a folder named like `10_jeff_person` repeats its pictures 10 times, and its name
    replaces missing captions where no trigger word is set. `train_data_dir` may hold such folders, be one, or be plain
    (1 repeat). Names that start with a dot are skipped; links that lead out of the folder are not followed.

    Raises:
        UserError: there is no such folder, it holds no pictures, or none of them can be used. ConfigError where that
            is `reg_data_dir`.
    """
    root = existing_folder(config.train_data_dir)
    folders, skipped = picture_folders(root)
    samples, excluded = _pictures_of(folders, root, config, skipped)
    if excluded and not samples:
        raise UserError(f"All {len(excluded)} pictures in {root} are excluded.", "Include some again.")
    if not samples:
        raise nothing_usable(root, skipped)
    marked = {sample.image.parent for sample in samples if sample.regularising}
    by_folder = next(
        (folder.trigger_words for folder in folders if folder.trigger_words and folder.path not in marked), ""
    )
    word = config.trigger_word or by_folder
    notices = list(_caption_notices([sample for sample in samples if not sample.regularising], word, config))
    of_class = _class_pictures(config, skipped) if config.reg_data_dir.strip() else []
    balanced = _as_many(of_class, sum(sample.repeats for sample in samples))
    if len(balanced) < len(of_class):
        notices.append(
            f"{len(balanced)} of {len(of_class)} regularisation pictures are used: as many as an epoch draws of the"
            " others. More repeats in the image folder's name use more."
        )
    return Scan(
        (*samples, *balanced), tuple(skipped), word, tuple(notices), tuple(excluded),
        frozenset(sample.image.parent for sample in balanced),
    )  # fmt: skip


def _pictures_of(
    folders: Sequence[PictureFolder],
    root: Path,
    config: DatasetConfig,
    skipped: list[Skipped],
    *,
    of_class: bool = False,
) -> tuple[list[Sample], list[Sample]]:
    """(those of the run, those that are excluded)."""
    samples, excluded = [], []
    for folder in folders:
        for sample, is_excluded in folder_samples(folder, root, config, skipped, of_class=of_class):
            (excluded if is_excluded else samples).append(sample)
    return samples, excluded


def _class_pictures(config: DatasetConfig, skipped: list[Skipped]) -> list[Sample]:
    """The pictures of `reg_data_dir`. Raises ConfigError."""
    try:
        root = existing_folder(config.reg_data_dir)
        folders, beside = picture_folders(root)
        skipped += beside
        found, _ = _pictures_of(folders, root, config, skipped, of_class=True)
        if not found:
            raise nothing_usable(root, skipped)
    except UserError as error:
        raise ConfigError({"reg_data_dir": str(error)}) from error
    return found


def _as_many(pictures: Sequence[Sample], drawn: int) -> list[Sample]:
    """These pictures repeated so that an epoch draws `drawn` of them, as sd-scripts repeats regularisation images."""
    used: list[Sample] = []
    missing = drawn
    for sample in pictures:
        if missing <= 0:
            break
        used.append(sample)
        missing -= sample.repeats
    each, rest = divmod(max(0, missing), max(1, len(used)))
    return [replace(sample, repeats=sample.repeats + each + (place < rest)) for place, sample in enumerate(used)]


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
