"""Prompts that show what a LoRA has learned, proposed from what is known of it."""

from __future__ import annotations

from collections.abc import Sequence

from lib_trainer.lora.info import LoraInfo
from lib_trainer.lora.tags import LoraRef

# The first asks for what was never among the pictures, the second for what was.
PROMPTS = {
    "face": ("{word} as a superhero", "{word}, portrait photo, looking at camera"),
    "style": ("cat in {word} style", "a house, painted in {word} style"),
}
COMBINED = "portrait of {person} in {style} style"


def kind_of(lora: LoraInfo) -> str:
    """face or style, by how people name them; a guess, where nobody has said it."""
    return "style" if "style" in f"{lora.words} {lora.name}".lower() else "face"


def propose_prompts(kind: str, word: str) -> list[str]:
    """`jeff_person as a superhero` …, without tags; [] without a word. `kind`: face or style."""
    return [prompt.format(word=word) for prompt in PROMPTS[kind]] if word else []


def propose_combined(kind: str, first: tuple[str, LoraRef], second: tuple[str, LoraRef]) -> str:
    """`portrait of jeff_person <lora:jeff_person:0.8> in style_name <lora:style_name:0.6> style`.

    Args:
        kind: what the first is, a face or a style; the second is taken for the other.
        first, second: the words that call it, and its use. Words that are already part of the name's tag are said too:
            a tag changes the model, only words call what it has learned.
    """
    parts = [" ".join(part for part in (words, use.tag) if part) for words, use in (first, second)]
    person, style = parts if kind == "face" else reversed(parts)
    return COMBINED.format(person=person, style=style)


def prompt_lines(text: str) -> list[str]:
    """One prompt a line, empty lines left out, each once."""
    return list(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))


def join_lines(prompts: Sequence[str]) -> str:
    return "\n".join(prompts)
