"""`<lora:NAME:STRENGTH>` in prompts: found, set to another strength, taken out."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_TAG = re.compile(r"<lora:([^:>]+)(?::[^>]*)?>")
_WITH_SPACE_BEFORE = re.compile(r"[ \t]*<lora:([^:>]+)(?::[^>]*)?>")


@dataclass(frozen=True)
class LoraRef:
    """A LoRA at a strength; at 0 it is not in the prompt at all."""

    name: str
    strength: float

    @property
    def tag(self) -> str:
        return f"<lora:{self.name}:{self.strength:g}>" if self.strength else ""

    @property
    def label(self) -> str:
        return f"{self.name} {self.strength:g}"


def names_in(prompt: str) -> list[str]:
    """Every name that a prompt asks for, once, in order."""
    return list(dict.fromkeys(_TAG.findall(prompt)))


def with_lora(prompt: str, use: LoraRef, instead_of: Iterable[str] = ()) -> str:
    """The prompt with this LoRA at this strength.

    Its tag stays where it stands; without one it goes to the end. At strength 0 nothing is left of it.

    Args:
        instead_of: other names whose tags it takes the place of: its aliases, or other steps of the same run.
    """
    names = {use.name, *instead_of}
    places = [match for match in _TAG.finditer(prompt) if match[1] in names]
    if not places:
        return f"{prompt.rstrip()} {use.tag}".strip()
    if not use.strength:
        return without(prompt, names)
    first = places[0]
    rest = _cut(prompt[first.end() :], names)
    return f"{prompt[: first.start()]}{use.tag}{rest}"


def without(prompt: str, names: Iterable[str]) -> str:
    """The prompt without the tags of these names, nor the space before them."""
    cut = _cut(prompt, set(names))
    # A tag at the very beginning leaves the space after it.
    return cut.lstrip(" \t") if cut != prompt else cut


def _cut(prompt: str, names: set[str]) -> str:
    return _WITH_SPACE_BEFORE.sub(lambda match: "" if match[1] in names else match[0], prompt)


def bare(prompt: str) -> str:
    """The prompt without any tag."""
    return without(prompt, names_in(prompt))
