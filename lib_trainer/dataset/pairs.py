"""Pairs of pictures in two folders: the first of each with its caption, and the second that it is to become."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lib_trainer.config.recipe import DatasetConfig
from lib_trainer.dataset.images import shown_name
from lib_trainer.dataset.samples import Sample
from lib_trainer.dataset.scan import Scan, scan_folder
from lib_trainer.errors import ConfigError, UserError

_NAMED = 5


def scan_pairs(scan: Scan, config: DatasetConfig, target_dir: str) -> Scan:
    """The second picture of each of `scan.samples`, in their order, with their captions, repeats and crops.

    They belong together by file name whatever the ending; where no name fits and both folders hold as many pictures,
    by order.

    Raises:
        ConfigError: of `diff_target_dir`, with every pair that is not whole and every pair of two sizes.
    """
    try:
        others = scan_folder(replace(config, train_data_dir=target_dir, reg_data_dir=""))
    except UserError as error:
        raise ConfigError({"diff_target_dir": str(error)}) from error
    seconds = {_key(sample): sample for sample in others.samples}
    found = [seconds.get(_key(sample)) for sample in scan.samples]
    # Exports of two programs number their files differently, in the same order.
    if not any(found) and len(others.samples) == len(scan.samples):
        found = list(others.samples)
    pairs = list(zip(scan.samples, found, strict=True))
    problems = []
    if lonely := [first.image for first, second in pairs if second is None]:
        problems.append(f"no picture there belongs to {_names(lonely)}")
    if same := [first.image for first, second in pairs if second and second.image.samefile(first.image)]:
        problems.append(f"both pictures of a pair are the same file: {_names(same)}")
    sizes = [(first, whole_size(first), whole_size(second)) for first, second in pairs if second]
    if unlike := [(first, one, other) for first, one, other in sizes if one != other]:
        listed = [f"{shown_name(first.image)} ({_px(one)} and {_px(other)})" for first, one, other in unlike[:_NAMED]]
        more = " …" if len(unlike) > _NAMED else ""
        problems.append(f"the pictures of a pair must have one size: {', '.join(listed)}{more}")
    if problems:
        raise ConfigError({"diff_target_dir": "; ".join(problems)})
    samples = tuple(replace(first, image=second.image) for first, second in pairs if second)
    return replace(others, samples=samples, notices=(), trigger_word=scan.trigger_word)


def whole_size(sample: Sample) -> tuple[int, int]:
    """Width and height of the picture in px, without its crop."""
    return sample.whole_px or (sample.width_px, sample.height_px)


def _key(sample: Sample) -> str:
    return sample.image.stem.casefold()


def _names(paths: Sequence[Path]) -> str:
    return ", ".join(map(shown_name, paths[:_NAMED])) + " …" * (len(paths) > _NAMED)


def _px(size: tuple[int, int]) -> str:
    return f"{size[0]}×{size[1]}"
