"""Which tags a folder's captions have, and what that means for the adapter."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lib_trainer.dataset.editing.tags import split_tags, tag_key


@dataclass(frozen=True)
class TagCount:
    """One tag of the table.

    Attributes:
        tag: as it is spelled first.
        count: captions that have it.
        everywhere: all captions have it: what they share is learned together with it, and comes with it.
    """

    tag: str
    count: int
    everywhere: bool


def tag_table(captions: Iterable[str]) -> list[TagCount]:
    """The tags, the most frequent first. A tag counts once a caption, in however many lines it stands."""
    spelled: dict[str, str] = {}
    counts: dict[str, int] = {}
    total = 0
    for caption in captions:
        total += 1
        found = {tag_key(tag): tag for line in caption.splitlines() for tag in reversed(split_tags(line))}
        for key, tag in found.items():
            spelled.setdefault(key, tag)
            counts[key] = counts.get(key, 0) + 1
    ordered = sorted(counts, key=lambda key: (-counts[key], key))
    return [TagCount(spelled[key], counts[key], total > 1 and counts[key] == total) for key in ordered]


def has_tag(caption: str, tag: str) -> bool:
    """Whether a caption has this tag, in any of its lines and spellings."""
    return any(tag_key(part) == tag_key(tag) for line in caption.splitlines() for part in split_tags(line))
