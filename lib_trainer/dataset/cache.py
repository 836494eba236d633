"""Encodes everything a run will draw, once, so that VAE and text encoders can leave the device."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from lib_trainer.config.recipe import field_of
from lib_trainer.dataset.buckets import MUCH_CUT, cut_share, is_enlarged
from lib_trainer.dataset.cache_latents import LatentCaching
from lib_trainer.dataset.cache_store import Entry, LatentStore, TextStore, entry_path, keep, read_tensors
from lib_trainer.dataset.images import shown_name
from lib_trainer.dataset.sampler import Schedule
from lib_trainer.errors import UserError
from lib_trainer.events import Event, Notice, Progress
from lib_trainer.models.base import HostModel
from lib_trainer.models.families import Family

_BATCH_CAPTIONS = 8
_LARGE_RAM_BYTES = 2**32
_FLOAT_BYTES = 4


def cache_latents(
    schedule: Schedule, model: HostModel, folder: Path | None, *, also: Sequence[int] = ()
) -> Generator[Event, None, LatentStore]:
    """Encodes every picture that the run draws, into files under `folder`, or into RAM where it is None.

    A picture whose pixels are unreadable is named in a Notice and left out: the store's `schedule` is the run without
    it. Progress comes after each picture, so a stop takes effect within one batch.

    Args:
        also: samples that are encoded as they are, as variant 0, whether the run draws that or not.

    Raises:
        UserError: no picture can be read, a side is not whole cells of the family's latents, the VAE returns NaN, or
            the disk cannot be written.
    """
    _require_whole_cells(schedule, model.family)
    yield from _notices(schedule, model.family, in_ram=folder is None)
    caching = LatentCaching(schedule, model, folder)
    while True:
        yield from caching.encode_pictures(
            [picture for picture in schedule.pictures() if picture not in caching.entries]
        )
        # In batches of their own: what a picture is encoded beside may change its last digit.
        plain = [(sample, 0) for sample in also if sample not in caching.failed]
        yield from caching.encode_pictures([picture for picture in plain if picture not in caching.entries])
        # Another round only if this one found pictures that the schedule did not know to be unreadable.
        if caching.failed <= schedule.without:
            return LatentStore(schedule, caching.entries)
        # With fewer pictures an epoch has fewer steps: a run of a fixed number of steps draws from later epochs too.
        schedule = schedule.leave_out(frozenset(caching.failed))


def _require_whole_cells(schedule: Schedule, family: Family) -> None:
    for bucket in set(schedule.buckets):
        if bucket.width_px % family.latent_px or bucket.height_px % family.latent_px:
            raise UserError(
                f"{family.label} takes sides that are multiples of {family.latent_px} px; a bucket has "
                f"{bucket.width_px}×{bucket.height_px} px.",
                "Set resolution, min_bucket_reso and bucket_reso_steps to multiples of it.",
            )


def cache_texts(
    schedule: Schedule, model: HostModel, clip_skip: int, folder: Path | None, *, also: Sequence[str] = ()
) -> Generator[Event, None, TextStore]:
    """Encodes every caption that the run draws, and the empty one, into files under `folder` or into RAM.

    Args:
        also: captions that are encoded besides.

    Raises:
        UserError: the text encoders return NaN, or the disk cannot be written.
    """
    drawn = ["", *filter(None, schedule.captions())]
    extra = [caption for caption in dict.fromkeys(also) if caption not in drawn]
    captions = drawn + extra
    # Files are named by what decides their content, so a cache is shared by all runs that encode the same.
    paths = {caption: _text_path(caption, model, clip_skip, folder) for caption in captions}
    entries: dict[str, Entry] = {}
    for caption, path in paths.items():
        if path is not None and read_tensors(path) is not None:
            entries[caption] = path
            yield Progress("caching", len(entries), len(captions), "captions")
    missing = [[caption for caption in part if caption not in entries] for part in (drawn, extra)]
    empty = model.encode_text([""], clip_skip).context[0] if any(missing) else None
    if folder is None and empty.nbytes * len(captions) > _LARGE_RAM_BYTES:
        yield _ram_notice("captions", empty.nbytes * len(captions))
    # What a caption is encoded beside may change its last digit: those that are drawn keep to themselves.
    groups = [
        part[start : start + _BATCH_CAPTIONS] for part in missing for start in range(0, len(part), _BATCH_CAPTIONS)
    ]
    for group in groups:
        for caption, tensors in _encode_captions(group, empty, model, clip_skip):
            entries[caption] = keep(tensors, paths[caption])
            yield Progress("caching", len(entries), len(captions), "captions")
    return TextStore(entries, in_chunks=not model.family.is_flow)


def _text_path(caption: str, model: HostModel, clip_skip: int, folder: Path | None) -> Path | None:
    if folder is None:
        return None
    return entry_path(folder / "texts", model.checkpoint, {"caption": caption, "clip_skip": clip_skip})


def _encode_captions(
    captions: list[str], empty: Tensor, model: HostModel, clip_skip: int
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    encoded = model.encode_text(captions, clip_skip)
    for row, caption in enumerate(captions):
        context = encoded.context[row]
        own = context[: encoded.lengths[row]] if encoded.lengths else _own_chunks(context, empty)
        # A clone, because a view would keep the whole batch in memory.
        tensors = {"context": own.clone()}
        if encoded.pooled is not None:
            tensors["pooled"] = encoded.pooled[row].clone()
        if not all(torch.isfinite(tensor).all() for tensor in tensors.values()):
            raise UserError(
                f"The text encoders produced NaN or Inf for the caption {caption!r}.",
                "Start the WebUI with --clip-in-fp32 (Forge) or --no-half.",
            )
        yield caption, tensors


def _own_chunks(context: Tensor, empty: Tensor) -> Tensor:
    """A caption's context (77·n, D) without the empty chunks that pad it to the longest of its batch."""
    # Not exact: in half precision a chunk's last digits depend on the batch it is encoded in.
    rows, tolerance = len(empty), 1e-2 * float(empty.abs().mean())
    while len(context) > rows and torch.allclose(context[-rows:], empty, rtol=1e-2, atol=tolerance):
        context = context[:-rows]
    return context


def _notices(schedule: Schedule, family: Family, *, in_ram: bool) -> Iterator[Notice]:
    samples, pictures = schedule.scan.samples, schedule.pictures()
    if schedule.recipe.dataset.bucket_no_upscale:
        small = [
            shown_name(sample.image)
            for sample, bucket in zip(samples, schedule.buckets, strict=True)
            if is_enlarged(sample.width_px, sample.height_px, bucket)
        ]
        if small:
            named = ", ".join(small[:5]) + " …" * (len(small) > 5)
            yield Notice(f"{len(small)} of {len(samples)} pictures: smaller than their bucket, so enlarged: {named}")
    if text := _cut_notice(schedule):
        yield Notice(text)
    areas = (schedule.buckets[sample].width_px * schedule.buckets[sample].height_px for sample, _ in pictures)
    latent_bytes = family.latent_values(sum(areas)) * _FLOAT_BYTES
    if in_ram and latent_bytes > _LARGE_RAM_BYTES:
        yield _ram_notice("pictures", latent_bytes)


def _cut_notice(schedule: Schedule) -> str:
    """The pictures that lose much to the crop, with the share of each; "" where there are none."""
    config, samples = schedule.recipe.dataset, schedule.scan.samples
    shares = {
        shown_name(sample.image): share
        for sample, bucket in zip(samples, schedule.buckets, strict=True)
        if (share := cut_share(sample.width_px, sample.height_px, bucket, config)) > MUCH_CUT
    }
    if not shares:
        return ""
    named = ", ".join(f"{name} ({share:.0%})" for name, share in list(shares.items())[:5]) + " …" * (len(shares) > 5)
    label = field_of("bucket_panoramas").metadata["label"]
    advice = f"; “{label}” trains them at their own shape" if config.enable_bucket else ""
    return f"{len(shares)} of {len(samples)} pictures lose more than a third to the crop: {named}{advice}."


def _ram_notice(what: str, size_bytes: int) -> Notice:
    return Notice(f"The encoded {what} take {size_bytes / 2**30:.1f} GiB of RAM; “Cache on disk” keeps them in files.")
