"""Pictures that show the same: copies, re-saved, resized, mirrored, rotated by quarters or cropped.

Hashes propose pairs; the small copies of both decide, moved and scaled until they fit best. In a large folder only
pictures of about the same colours are compared, so that the time grows with their number, hardly with its square.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from lib_trainer.dataset.checks.finding import Finding, named
from lib_trainer.dataset.checks.hashes import TURNS, WHOLE, Box, as_signs, parts, turned
from lib_trainer.dataset.checks.pictures import Pictures
from lib_trainer.events import Progress

# Bits of 64 in which hashes of a pair may differ, and the correlation from which its pixels are the same picture.
_BITS, _ALIKE = 16, 0.965
# Pairs that agree less at first are not looked at closer.
_PROMISING, _FLAT = 0.5, 2.0
_COMPARED_PX = 32
# Pictures that are compared with others at once, and the bytes of a comparison's table.
_AT_ONCE, _TABLE_BYTES = 32, 2**21
# Pairs that are looked at for each picture and block of others.
_MOST_NEAR = 12
# How far a crop's edges may lie from those of one of the parts, as shares of the side, coarse to fine.
_NUDGES = (0.05, 0.03, 0.015)
# Comparing every part of every picture with all others grows with the square of their number.
MOST_WITH_PARTS = 1000
# What saving again changes of a picture's mean colour and contrast, of 255, and some more.
_SAME_COLOURS = 6.0


def check_duplicates(pictures: Pictures) -> Iterator[Finding | Progress]:
    """Compares all pictures, then yields a finding `duplicate` for each group that looks the same."""
    group = list(range(len(pictures)))

    def head(index: int) -> int:
        while group[index] != index:
            group[index] = group[group[index]]
            index = group[index]
        return index

    done = 0
    for ours, theirs, boxes in _blocks(pictures):
        for pair in _near_pairs(pictures, ours, theirs, boxes):
            one, other = head(pair.one), head(pair.other)
            if one != other and _looks_alike(pictures, pair):
                group[max(one, other)] = min(one, other)
        done += len(ours)
        yield Progress("comparing", done, len(pictures))
    members: dict[int, list[int]] = {}
    for index in range(len(pictures)):
        members.setdefault(head(index), []).append(index)
    for same in members.values():
        if len(same) > 1:
            found = tuple(pictures.samples[index].image for index in same)
            text = f"{named(found)} show the same, which counts {len(found)} times in the run."
            yield Finding("duplicate", found, text)


@dataclass(frozen=True)
class _Pair:
    """Two pictures whose hashes differ in few bits: the first, turned so, may be this part of the other."""

    bits: int
    one: int
    other: int
    box: Box
    turn: int


def _blocks(pictures: Pictures) -> Iterator[tuple[np.ndarray, np.ndarray, list[Box]]]:
    """(places of some pictures, of those to compare them with, parts of the latter): in the end all places once."""
    everyone = np.arange(len(pictures))
    if all(hashes is not None for hashes in pictures.part_hashes):
        boxes = parts()
        for start in range(0, len(everyone), _AT_ONCE):
            yield everyone[start : start + _AT_ONCE], everyone, boxes
    else:
        for ours, theirs in _alike_in_colour(pictures.column("colours"), everyone, everyone):
            yield ours, theirs, [WHOLE]


def _near_pairs(pictures: Pictures, ours: np.ndarray, theirs: np.ndarray, boxes: list[Box]) -> list[_Pair]:
    """The nearest match of every two pictures that have one, for each turn of the first."""
    best: dict[tuple[int, int, int], _Pair] = {}
    signs = as_signs(pictures.column("hashes")[ours]).reshape(-1, 64)
    owner = np.repeat(ours, TURNS)
    step = max(1, _TABLE_BYTES // (4 * len(signs) * len(boxes)))
    for others in np.split(theirs, range(step, len(theirs), step)):
        if len(boxes) > 1:
            hashes = np.stack([pictures.part_hashes[place] for place in others.tolist()])
        else:
            hashes = pictures.column("hashes")[others, :1]
        # As ±1 the number of different bits of all pairs is one matrix product.
        bits = signs @ as_signs(hashes).reshape(-1, 64).T
        bits *= -0.5
        bits += 32
        # Every picture is like itself and its own parts.
        bits[owner[:, None] == np.repeat(others, len(boxes))] = 64
        for row, column in _nearest(bits):
            place, part = divmod(column, len(boxes))
            pair = _Pair(int(bits[row, column]), int(owner[row]), int(others[place]), boxes[part], row % TURNS)
            key = pair.one, pair.other, pair.turn
            if key not in best or pair.bits < best[key].bits:
                best[key] = pair
    return sorted(best.values(), key=lambda pair: pair.bits)


def _alike_in_colour(
    colours: np.ndarray, ours: np.ndarray, theirs: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Blocks of places, each with the places of those whose colours are near to one of its own.

    A block is halved along the colour in which it differs most until it is small, and with it those near to it.
    """
    low, high = colours[ours].min(0, initial=np.inf), colours[ours].max(0, initial=-np.inf)
    there = colours[theirs]
    theirs = theirs[((there >= low - _SAME_COLOURS) & (there <= high + _SAME_COLOURS)).all(1)]
    if len(ours) <= _AT_ONCE:
        yield ours, theirs
        return
    order = ours[np.argsort(colours[ours, np.argmax(high - low)], kind="stable")]
    for half in np.array_split(order, 2):
        yield from _alike_in_colour(colours, half, theirs)


def _nearest(bits: np.ndarray) -> Iterator[tuple[int, int]]:
    """(row, column) of the few nearest in each row: groups grow by them, and a film's frames have millions of pairs."""
    near = bits <= _BITS
    for row in np.flatnonzero(near.any(1)).tolist():
        columns = np.flatnonzero(near[row])
        if len(columns) > _MOST_NEAR:
            columns = columns[np.argpartition(bits[row, columns], _MOST_NEAR)[:_MOST_NEAR]]
        yield from ((row, int(place)) for place in columns)


def _looks_alike(pictures: Pictures, pair: _Pair) -> bool:
    """Whether the small copies agree; where crops are looked for, with the part's edges where they agree best."""
    whole = _standard(turned(Image.fromarray(pictures.small(pair.one)), pair.turn), WHOLE)
    picture = Image.fromarray(pictures.small(pair.other))
    box, best = pair.box, _agreement(whole, picture, pair.box)
    for nudge in _NUDGES if pictures.part_hashes[pair.other] is not None else ():
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
