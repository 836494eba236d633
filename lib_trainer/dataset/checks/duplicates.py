"""Pictures that show the same: copies, re-saved, resized, mirrored, rotated by quarters or cropped.

Hashes propose pairs; the small copies of both decide, moved and scaled until they fit best.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from lib_trainer.dataset.checks.finding import Finding, named
from lib_trainer.dataset.checks.hashes import TURNS, WHOLE, Box, parts, turned
from lib_trainer.dataset.checks.measure import Measured, Pictures

# Bits of 64 in which hashes of a pair may differ, and the correlation from which its pixels are the same picture.
_BITS, _ALIKE = 16, 0.965
# Pairs that agree less at first are not looked at closer.
_PROMISING, _FLAT = 0.5, 2.0
_COMPARED_PX, _PICTURES_AT_ONCE = 32, 128
# Pairs that are looked at for each picture and block of others.
_MOST_NEAR = 12
# How far a crop's edges may lie from those of one of the parts, as shares of the side, coarse to fine.
_NUDGES = (0.05, 0.03, 0.015)
# Comparing every part of every picture with all others grows with the square of their number.
MOST_WITH_PARTS = 1000


def check_duplicates(pictures: Pictures) -> list[Finding]:
    """A finding `duplicate` for each group of pictures that look the same."""
    group = list(range(len(pictures)))

    def head(index: int) -> int:
        while group[index] != index:
            group[index] = group[group[index]]
            index = group[index]
        return index

    for pair in _candidates(pictures):
        one, other = head(pair.one), head(pair.other)
        if one != other and _looks_alike(pictures[pair.one][1], pictures[pair.other][1], pair):
            group[max(one, other)] = min(one, other)
    members: dict[int, list[int]] = {}
    for index in range(len(pictures)):
        members.setdefault(head(index), []).append(index)
    groups = [tuple(pictures[index][0].image for index in found) for found in members.values() if len(found) > 1]
    return [
        Finding("duplicate", found, f"{named(found)} show the same, which counts {len(found)} times in the run.")
        for found in groups
    ]


@dataclass(frozen=True)
class _Pair:
    """Two pictures whose hashes differ in few bits: the first, turned so, may be this part of the other."""

    bits: int
    one: int
    other: int
    box: Box
    turn: int


def _candidates(pictures: Pictures) -> list[_Pair]:
    """The nearest match of every two pictures that have one, for each turn of the first."""
    if not pictures:
        return []
    own = np.stack([measured.hashes for _, measured in pictures])
    found = [measured.part_hashes for _, measured in pictures]
    with_parts = all(hashes is not None for hashes in found)
    boxes = parts() if with_parts else [WHOLE]
    others = np.stack(found if with_parts else [hashes[:1] for hashes in own])
    # As ±1 the number of different bits of all pairs is one matrix product.
    theirs = others.reshape(-1, 64).astype(np.float32) * 2 - 1
    best: dict[tuple[int, int, int], _Pair] = {}
    for start in range(0, len(pictures), _PICTURES_AT_ONCE):
        ours = own[start : start + _PICTURES_AT_ONCE].reshape(-1, 64).astype(np.float32) * 2 - 1
        owner = start + np.arange(len(ours)) // TURNS
        step = max(1, 2_000_000 // len(ours))
        for column in range(0, len(theirs), step):
            bits = (64 - ours @ theirs[column : column + step].T) / 2
            # Every picture is like itself and its own parts.
            bits[owner[:, None] == (column + np.arange(bits.shape[1])) // len(boxes)] = 64
            for row, place in _nearest(bits):
                one, (other, part) = start + row // TURNS, divmod(column + place, len(boxes))
                pair = _Pair(int(bits[row, place]), one, other, boxes[part], row % TURNS)
                key = one, other, pair.turn
                if key not in best or pair.bits < best[key].bits:
                    best[key] = pair
    return sorted(best.values(), key=lambda pair: pair.bits)


def _nearest(bits: np.ndarray) -> Iterator[tuple[int, int]]:
    """(row, column) of the few nearest in each row: groups grow by them, and a film's frames have millions of pairs."""
    near = bits <= _BITS
    for row in np.flatnonzero(near.any(1)).tolist():
        columns = np.flatnonzero(near[row])
        if len(columns) > _MOST_NEAR:
            columns = columns[np.argpartition(bits[row, columns], _MOST_NEAR)[:_MOST_NEAR]]
        yield from ((row, int(place)) for place in columns)


def _looks_alike(one: Measured, other: Measured, pair: _Pair) -> bool:
    """Whether the small copies agree, after the part's edges were moved to where they agree best."""
    whole = _standard(turned(Image.fromarray(one.small), pair.turn), WHOLE)
    picture = Image.fromarray(other.small)
    box, best = pair.box, _agreement(whole, picture, pair.box)
    for nudge in _NUDGES:
        if best < _PROMISING or best >= _ALIKE:
            break
        for edge in (0, 1, 2, 3, 0, 1, 2, 3):
            for move in (-nudge, nudge):
                moved = tuple(min(1.0, max(0.0, at + move * (edge == place))) for place, at in enumerate(box))
                agreement = _agreement(whole, picture, moved)
                if agreement > best:
                    box, best = moved, agreement
    return best >= _ALIKE


def _agreement(whole: np.ndarray | None, picture: Image.Image, box: Box) -> float:
    """The correlation of a picture with a part of another, −1 to 1."""
    part = _standard(picture, box)
    # Without contrast a picture looks like any other such.
    return -1.0 if whole is None or part is None else float((whole * part).mean())


def _standard(small: Image.Image, box: Box) -> np.ndarray | None:
    """A part in RGB at mean 0 and spread 1; None for one without contrast."""
    width, height = small.size
    edges = (box[0] * width, box[1] * height, box[2] * width, box[3] * height)
    pixels = np.asarray(
        small.resize((_COMPARED_PX, _COMPARED_PX), Image.Resampling.BILINEAR, box=edges), dtype=np.float32
    )
    spread = pixels.std()
    return None if spread < _FLAT else (pixels - pixels.mean()) / spread
