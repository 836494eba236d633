"""Pictures to latents: a few threads decode and crop ahead while the VAE encodes, bucket by bucket."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from lib_trainer.dataset.augment import augmentation_of
from lib_trainer.dataset.buckets import Bucket, resized_size
from lib_trainer.dataset.cache_store import Entry, entry_path, keep, read_tensors
from lib_trainer.dataset.images import Cut, cut, decode_picture, read_picture, shown_name
from lib_trainer.dataset.masks import cut_mask, mask_of_latents, read_mask
from lib_trainer.dataset.sampler import Schedule
from lib_trainer.errors import UserError
from lib_trainer.events import Event, Notice, Progress
from lib_trainer.models.base import HostModel
from lib_trainer.utils.prefetch import prefetched

# One 1024×1024 picture, or smaller ones of that area: encoding takes no more memory than SDXL's own size does.
_BATCH_PIXELS = 2**20
_BATCH_PICTURES = 16
# A picture is decoded again for every four variants, which bounds the pixels that wait in memory.
_VARIANTS_AT_ONCE = 4
_DECODERS = 4


@dataclass(frozen=True)
class _Piece:
    """A picture to encode as `cut`; None where the cache file at `path` exists. `mask` (H, W) says where it counts."""

    sample: int
    variant: int
    path: Path | None
    cut: Cut | None
    mask: Tensor | None = None


# A sample and some of its variants: the work of one thread at a time.
_Unit = tuple[int, tuple[int, ...]]


class LatentCaching:
    """The pictures of a run that are encoded so far, in RAM or in files under `folder`.

    Attributes:
        entries: (sample, variant) -> what a `LatentStore` holds.
        failed: samples whose pixels cannot be read.
    """

    def __init__(self, schedule: Schedule, model: HostModel, folder: Path | None) -> None:
        self.entries: dict[tuple[int, int], Entry] = {}
        self.failed: set[int] = set()
        self._schedule, self._model = schedule, model
        self._folder = None if folder is None else folder / "latents"
        self._total = 0

    def encode_pictures(self, pictures: Sequence[tuple[int, int]]) -> Iterator[Event]:
        """Encodes these (sample, variant) bucket by bucket."""
        self._total = len(self.entries) + len(pictures)
        pending: list[_Piece] = []
        # JPEG decoding releases the interpreter's lock, so threads suffice.
        workers = min(_DECODERS, os.cpu_count() or 1)
        with closing(prefetched(self._units(pictures), self._prepare, workers=workers, ahead=2 * workers)) as prepared:
            for (sample, variants), future in prepared:
                bucket = self._schedule.buckets[sample]
                # The VAE takes pictures of one size at a time.
                if pending and self._schedule.buckets[pending[0].sample] != bucket:
                    yield from self._flush(pending)
                try:
                    pieces = future.result()
                except UserError as error:
                    self._total -= len(variants)
                    # A picture of many variants comes in several units, and each of them fails.
                    if sample not in self.failed:
                        self.failed.add(sample)
                        yield Notice(f"{error.message} The run continues without it.")
                    continue
                for piece in pieces:
                    pending.append(piece)
                    if len(pending) == _batch_size(bucket):
                        yield from self._flush(pending)
            yield from self._flush(pending)

    def _flush(self, pending: list[_Piece]) -> Iterator[Event]:
        """Encodes the pending pictures, all of one bucket, unless all are in the cache; empties the list."""
        pieces = list(pending)
        pending.clear()
        if all(piece.cut is None for piece in pieces):
            for piece in pieces:
                yield self._done(piece, piece.path)
            return
        # With those of its batch that are in the cache: after a kill the others are encoded as in an unbroken run.
        cuts = [piece.cut or self._cut_anew(piece) for piece in pieces]
        batch = self._model.encode_images(torch.stack([found.pixels for found in cuts]))
        for piece, latents in zip(pieces, batch, strict=True):
            if piece.cut is None:
                yield self._done(piece, piece.path)
                continue
            if not torch.isfinite(latents).all():
                raise UserError(
                    f"The VAE produced NaN or Inf for {shown_name(self._image(piece.sample))}.",
                    "Select a VAE that works in half precision, or start the WebUI with --no-half-vae.",
                )
            tensors = {"latents": latents.clone(), "size": piece.cut.size}
            if piece.mask is not None:
                tensors["mask"] = mask_of_latents(piece.mask, latents)
            yield self._done(piece, keep(tensors, piece.path))

    def _done(self, piece: _Piece, entry: Entry) -> Progress:
        self.entries[piece.sample, piece.variant] = entry
        return Progress("caching", len(self.entries), self._total, shown_name(self._image(piece.sample)))

    def _units(self, pictures: Iterable[tuple[int, int]]) -> list[_Unit]:
        """(sample, some variants) in the order of encoding: bucket by bucket."""
        variants: dict[int, list[int]] = {}
        for sample, variant in pictures:
            variants.setdefault(sample, []).append(variant)
        # Sorted, so that equal runs encode in equal batches: a batch can change the last digit of a latent.
        by_bucket = sorted(variants, key=lambda sample: (self._schedule.buckets[sample], sample))
        size = _VARIANTS_AT_ONCE
        return [
            (sample, tuple(variants[sample][start : start + size]))
            for sample in by_bucket
            for start in range(0, len(variants[sample]), size)
        ]

    def _cut_anew(self, piece: _Piece) -> Cut:
        """The cut of a piece that is in the cache. Raises UserError."""
        return self._prepare((piece.sample, (piece.variant,)), anew=True)[0].cut

    def _prepare(self, unit: _Unit, *, anew: bool = False) -> list[_Piece]:
        """Reads one picture, and crops the variants that are not in the cache; all if `anew`. Raises UserError."""
        sample, variants = unit
        recipe, image, bucket = self._schedule.recipe, self._image(sample), self._schedule.buckets[sample]
        data = read_picture(image)
        # Hashed and decoded from the same bytes: the file may change in between.
        sha256 = hashlib.sha256(data).hexdigest()
        picture = None
        mask, mask_key = self._mask(data, sample) or (None, "")
        pieces = []
        for variant in variants:
            augmentation = augmentation_of(variant, sha256, recipe.dataset, recipe.training.seed)
            path = self._path(sample, sha256, None if augmentation is None else asdict(augmentation), mask_key)
            if path is not None and not anew and read_tensors(path) is not None:
                pieces.append(_Piece(sample, variant, path, None))
                continue
            picture = picture or self._decode(data, sample)
            counted = None if mask is None else cut_mask(mask, bucket, recipe.dataset, augmentation)
            pieces.append(_Piece(sample, variant, path, cut(picture, bucket, recipe.dataset, augmentation), counted))
        return pieces

    def _decode(self, data: bytes, sample: int) -> Image.Image:
        picture, crop = decode_picture(data, self._image(sample)), self._schedule.scan.samples[sample].crop_px
        return picture if crop is None else picture.crop(crop)

    def _mask(self, data: bytes, sample: int) -> tuple[Image.Image, str] | None:
        if not self._schedule.recipe.loss.masked_loss:
            return None
        seen = self._schedule.scan.samples[sample]
        found = read_mask(data, seen.image, seen.whole_px or (seen.width_px, seen.height_px))
        return found if found is None or seen.crop_px is None else (found[0].crop(seen.crop_px), found[1])

    def _path(self, sample: int, sha256: str, augmentation: dict[str, Any] | None, mask_key: str) -> Path | None:
        if self._folder is None:
            return None
        seen, bucket = self._schedule.scan.samples[sample], self._schedule.buckets[sample]
        # The crop depends on it, and it depends on more settings than the bucket does.
        resized = resized_size(seen.width_px, seen.height_px, bucket, self._schedule.recipe.dataset)
        what = {"picture": sha256, "bucket": asdict(bucket), "resized": resized, "augmentation": augmentation}
        # Absent without a crop, so that caches of earlier releases stay valid.
        what |= {} if seen.crop_px is None else {"crop": seen.crop_px}
        what |= {"mask": mask_key} if mask_key else {}
        return entry_path(self._folder, self._model.checkpoint, what)

    def _image(self, sample: int) -> Path:
        return self._schedule.scan.samples[sample].image


def _batch_size(bucket: Bucket) -> int:
    return max(1, min(_BATCH_PICTURES, _BATCH_PIXELS // (bucket.width_px * bucket.height_px)))
