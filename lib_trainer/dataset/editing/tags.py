"""Captions as lists of tags: booru tags (`blue_eyes`, `rin \\(vocaloid\\)`), spelled-out tags, and sentences.

Two tags are the same if they differ only in letter case, underscores and escaped brackets. Each function works on one
line; a caption file may have several.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_ESCAPED = re.compile(r"\\([()\[\]])")


def split_tags(line: str) -> list[str]:
    """The parts between commas, without empty ones. A sentence without commas is one part."""
    return [part.strip() for part in line.split(",") if part.strip()]


def tag_key(tag: str) -> str:
    """What two spellings of one tag have in common."""
    return " ".join(_ESCAPED.sub(r"\1", tag).replace("_", " ").casefold().split())


def put_first(line: str, tag: str) -> str:
    """The tag as the first one, taken from where it stands in the line."""
    others = [other for other in split_tags(line) if tag_key(other) != tag_key(tag)]
    return ", ".join([tag, *others])


def add(line: str, tags: Iterable[str]) -> str:
    """The tags at the end, without those that the line has already."""
    found = split_tags(line)
    known = {tag_key(tag) for tag in found}
    for tag in tags:
        if tag_key(tag) not in known:
            known.add(tag_key(tag))
            found.append(tag)
    return ", ".join(found)


def remove(line: str, tags: Iterable[str]) -> str:
    """Without these tags."""
    gone = {tag_key(tag) for tag in tags}
    found = split_tags(line)
    kept = [tag for tag in found if tag_key(tag) not in gone]
    return line if len(kept) == len(found) else ", ".join(kept)


def replace_text(line: str, old: str, new: str) -> str:
    """With `new` for `old` wherever it stands, also within a sentence; a tag that is emptied goes."""
    if not old or old not in line:
        return line
    return ", ".join(split_tags(line.replace(old, new)))


def sort_tags(line: str, kept_first: int = 1) -> str:
    """In alphabetical order but for the first `kept_first`, where the trigger word stands."""
    found = split_tags(line)
    return ", ".join([*found[:kept_first], *sorted(found[kept_first:], key=tag_key)])


def dedupe(line: str) -> str:
    """Each tag once, where it stands first."""
    found: dict[str, str] = {}
    for tag in split_tags(line):
        found.setdefault(tag_key(tag), tag)
    return ", ".join(found.values()) if len(found) < len(split_tags(line)) else line
