"""Encoded pictures and captions, held in RAM or in one safetensors file each."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import time
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from lib_trainer.dataset.sampler import Schedule
from lib_trainer.errors import UserError
from lib_trainer.models.base import CheckpointInfo, TextCond
from lib_trainer.utils.atomic_file import replace_file

UNUSED_DAYS = 60.0
# Part of every key: raise it when the same input would be encoded differently.
_FORMAT_VERSION = 1
_CHECKSUM = "crc32"
_FULL = (errno.ENOSPC, errno.EDQUOT)

# The tensors themselves, or the file that holds them.
Entry = dict[str, Tensor] | Path


@dataclass(frozen=True)
class LatentStore:
    """Every encoded picture that a run draws.

    Attributes:
        schedule: what the run draws, without the pictures that turned out to be unreadable. Train by this one.
        entries: (sample, variant) -> tensors `latents`, `size` and perhaps `mask`.
    """

    schedule: Schedule
    entries: Mapping[tuple[int, int], Entry]

    def read(self, sample: int, variant: int) -> tuple[Tensor, Tensor]:
        """Latents (C, h, w) and the row (6,) of `SizeCond.pixels`, float32 on the CPU."""
        tensors = self.tensors(sample, variant)
        return tensors["latents"], tensors["size"]

    def tensors(self, sample: int, variant: int) -> dict[str, Tensor]:
        """Everything of a picture: `latents`, `size`, and `mask` (h, w) where not all of it counts in full."""
        return _load(self.entries[sample, variant])


@dataclass(frozen=True)
class TextStore:
    """Every encoded caption that a run draws, and always the empty one.

    Attributes:
        entries: caption -> tensors `context` and, for families that have it, `pooled`.
        in_chunks: contexts are made of chunks of one length, as those of UNets; else each has its own length.
    """

    entries: Mapping[str, Entry]
    in_chunks: bool = True

    def read(self, caption: str) -> TextCond:
        """Context (L, D) of the caption's own chunks, and pooled (P,) or None: float32, on the CPU, no batch."""
        tensors = _load(self.entries[caption])
        return TextCond(tensors["context"], tensors.get("pooled"))


def entry_path(folder: Path, checkpoint: CheckpointInfo, what: Mapping[str, Any]) -> Path:
    """The file of what `checkpoint` makes of `what`: JSON values of everything else that it depends on."""
    known = asdict(checkpoint)
    if not known["before_captions"]:
        # Keys of files from before it was noted.
        del known["before_captions"]
    facts = {"format": _FORMAT_VERSION, "checkpoint": known, **what}
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    # Some file systems grow slow with 100,000 names in one folder.
    return folder / key[:2] / f"{key}.safetensors"


def read_tensors(path: Path) -> dict[str, Tensor] | None:
    """The tensors in a file of `write_tensors`; None where it is missing, damaged or not readable."""
    try:
        tensors = safetensors.torch.load(path.read_bytes())
        # `prune_cache` goes by the time of the last use. A read-only cache works too.
        with suppress(OSError):
            os.utime(path)
        return tensors if int(tensors.pop(_CHECKSUM)) == _checksum(tensors) else None
    except (OSError, SafetensorError, LookupError, ValueError, RuntimeError):
        return None


def prune_cache(folder: Path, unused_days: float = UNUSED_DAYS) -> int:
    """Removes files that no run has read for this many days; returns their number."""
    # By the time of use, which `read_tensors` sets.
    before, removed = time.time() - unused_days * 86400, 0
    for kind in ("latents", "texts"):
        for path in (folder / kind).glob("*/*.safetensors"):
            with suppress(OSError):
                if path.stat().st_mtime < before:
                    path.unlink()
                    removed += 1
    return removed


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Writes contiguous tensors; the file appears complete or not at all.

    Raises:
        UserError: the disk is full or cannot be written.
    """
    data = safetensors.torch.save({**tensors, _CHECKSUM: torch.tensor(_checksum(tensors))})
    try:
        replace_file(path, data)
    except OSError as error:
        raise _cannot_write(path, error) from error


def keep(tensors: dict[str, Tensor], path: Path | None) -> Entry:
    """What a store holds for these tensors: themselves, or the file they are written to."""
    if path is None:
        return tensors
    write_tensors(path, tensors)
    return path


def _load(entry: Entry) -> dict[str, Tensor]:
    if not isinstance(entry, Path):
        return entry
    tensors = read_tensors(entry)
    if tensors is None:
        raise UserError(
            f"The cache file {entry} is missing or damaged.", "Start the run again: it will be encoded again."
        )
    return tensors


def _checksum(tensors: Mapping[str, Tensor]) -> int:
    total = 0
    for name in sorted(tensors):
        # safetensors has no checksum of its own; a flipped bit in a latent would only show as a bad LoRA.
        total = zlib.crc32(tensors[name].numpy().tobytes(), zlib.crc32(name.encode(), total))
    return total


def _cannot_write(path: Path, error: OSError) -> UserError:
    hint = "Choose a writable folder, or turn “Cache on disk” off."
    if error.errno in _FULL:
        hint = "Free some space there, or turn “Cache on disk” off."
        return UserError(f"The disk that holds the cache {path.parent.parent} is full.", hint)
    return UserError(f"The cache {path.parent.parent} cannot be written: {error.strerror or error}.", hint)
