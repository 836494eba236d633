"""A CLIP tokenizer of our own: each word of the demo world is one token, every other word is split into pieces."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer

START, END = "<|startoftext|>", "<|endoftext|>"
WORD_END = "</w>"
CONTEXT_TOKENS = 77
# Made-up names appear a handful of times in thousands of captions, the demo world's vocabulary far more often.
RARE = 20


def common_words(captions: Iterable[str]) -> list[str]:
    """Each word that at least RARE captions use, sorted."""
    counts = Counter(word for caption in captions for word in set(re.findall(r"[a-z]+", caption.lower())))
    return sorted(word for word, count in counts.items() if count >= RARE)


def write_tokenizer(folder: Path, vocabulary: Iterable[str]) -> None:
    """Write the files of a `CLIPTokenizer` with one token for each word of `vocabulary`, and one for every byte.

    A word is merged from its end: `n</w>`, `on</w>`, `son</w>` … At any moment only its last two pieces can be merged,
    so the merges of one word never break those of another.
    """
    folder.mkdir(parents=True, exist_ok=True)
    alphabet = sorted(ByteLevel.alphabet())
    pieces = [*alphabet, *(letter + WORD_END for letter in alphabet)]
    merges: list[tuple[str, str]] = []
    for word in vocabulary:
        for start in range(len(word) - 2, -1, -1):
            pair = (word[start], word[start + 1 :] + WORD_END)
            if pair not in merges:
                merges.append(pair)
                pieces.append("".join(pair))
    pieces += [START, END]
    tokens = {piece: number for number, piece in enumerate(pieces)}
    settings = {
        "tokenizer_class": "CLIPTokenizer",
        "bos_token": START,
        "eos_token": END,
        "unk_token": END,
        "pad_token": END,
        "model_max_length": CONTEXT_TOKENS,
    }
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "vocab.json").write_text(json.dumps(tokens, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def open_tokenizer(folder: Path) -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(folder)
