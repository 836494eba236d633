"""Prompts that show what a LoRA has learned, proposed from what is known of it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from lib_trainer.lora.info import LoraInfo
from lib_trainer.lora.tags import LoraRef

# The first asks for what no training picture shows, the second for what they do show.
PROMPTS = {
    "face": ("{word} as a superhero", "{word}, portrait photo, looking at camera"),
    "style": ("cat in {word} style", "a house, painted in {word} style"),
}
_PLAIN_BRACKET = re.compile(r"(?<!\\)[()\[\]]")
COMBINED = "portrait of {person} in {style} style"


def kind_of(lora: LoraInfo) -> str:
    """face or style, by how people name them; a guess."""
    return "style" if "style" in f"{lora.trigger_words} {lora.name}".lower() else "face"


def propose_prompts(kind: str, word: str) -> list[str]:
    """`jeff_person as a superhero` …, without tags; [] without a trigger word. `kind`: face, style or another."""
    prompts = PROMPTS.get(kind, ("{word}",))
    return [prompt.format(word=escape_brackets(word)) for prompt in prompts] if word else []


def propose_combined(kind: str, first: tuple[str, LoraRef], second: tuple[str, LoraRef]) -> str:
    """`portrait of jeff_person <lora:jeff_person:0.8> in style_name <lora:style_name:0.6> style`.

    Args:
        kind: what the first is, a face or a style; the second is taken for the other.
        first, second: (trigger words, LoRA). The prompt holds both: the tag changes the model, the trigger words call
            what it has learned.
    """
    parts = [f"{escape_brackets(trigger_words)} {lora.tag}".strip() for trigger_words, lora in (first, second)]
    person, style = parts if kind == "face" else reversed(parts)
    return COMBINED.format(person=person, style=style)


def escape_brackets(words: str) -> str:
    r"""`jeff \(actor\)`: WebUIs read plain brackets in a prompt as emphasis. Escaped ones stay as they are."""
    return _PLAIN_BRACKET.sub(r"\\\g<0>", words)


def prompt_lines(text: str) -> list[str]:
    """One prompt a line, empty lines left out, each once."""
    # A prompt that is written twice would be drawn twice.
    return list(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))


def join_lines(prompts: Sequence[str]) -> str:
    return "\n".join(prompts)
