"""`<lora:NAME:STRENGTH>` in prompts: found, set to another strength, taken out."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

# The WebUIs allow more after the strength (`:te=0.5`), so everything up to the bracket belongs to the tag.
_TAG = re.compile(r"<lora:([^:>]+)(?::([^>]*))?>")
_TAG_WITH_SPACE_BEFORE = re.compile(r"[ \t]*" + _TAG.pattern)


@dataclass(frozen=True)
class LoraRef:
    """A LoRA at a strength; at 0 it is not in the prompt at all.

    Attributes:
        aliases: other names whose tags mean this file: the host's aliases, or other saved steps of the same run.
    """

    name: str
    strength: float = 1.0
    aliases: tuple[str, ...] = field(default=(), compare=False)

    def at(self, strength: float) -> LoraRef:
        return replace(self, strength=strength)

    @property
    def tag(self) -> str:
        return f"<lora:{self.name}:{self.strength:g}>" if self.strength else ""

    @property
    def label(self) -> str:
        return f"{self.name} {self.strength:g}"


def names_in(prompt: str) -> list[str]:
    """Every name that a prompt asks for, once, in order."""
    return list(dict.fromkeys(name for name, _ in tags_in(prompt)))


def tags_in(prompt: str) -> list[tuple[str, str]]:
    """(name, text after it) of every tag in order; the text is "" for `<lora:NAME>`."""
    return _TAG.findall(prompt)


def with_lora(prompt: str, lora: LoraRef) -> str:
    """The prompt with this LoRA at this strength.

    Its tag stays where it stands; without one it goes to the end. At strength 0 nothing is left of it.
    """
    names = {lora.name, *lora.aliases}
    first = next((match for match in _TAG.finditer(prompt) if match[1] in names), None)
    if first is None:
        return f"{prompt.rstrip()} {lora.tag}".strip()
    if not lora.strength:
        return without(prompt, names)
    # A second tag of the same file would add to the strength.
    return f"{prompt[: first.start()]}{lora.tag}{_cut(prompt[first.end() :], names)}"


def without(prompt: str, names: Iterable[str]) -> str:
    """The prompt without the tags of these names, nor the space before them."""
    cut = _cut(prompt, set(names))
    # A tag at the very beginning leaves the space after it.
    return cut.lstrip(" \t") if cut != prompt else cut


def bare(prompt: str) -> str:
    """The prompt without any tag."""
    return without(prompt, names_in(prompt))


def _cut(prompt: str, names: set[str]) -> str:
    return _TAG_WITH_SPACE_BEFORE.sub(lambda match: "" if match[1] in names else match[0], prompt)
