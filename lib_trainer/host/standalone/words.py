"""Prompts in chunks of tokens, as the WebUIs cut them, and words that stand for vectors instead of tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lib_trainer.utils.patch import Forward, overridden_forward


def token_chunks(tokenizer: Any, prompts: Sequence[str], length: int, words: Mapping[str, Tensor]) -> list[Tensor]:
    """Prompts cut into chunks of `length` tokens, start and end mark included: one (B, length) tensor a chunk.

    Shorter prompts get empty chunks. As in the WebUIs, the tokenizer's padding follows the first end mark, and the
    vectors of a word lie in one chunk.

    Args:
        words: word -> its (n, width) vectors; they are numbered on from −1 downwards, as tokens of the result.
    """

    def ids_of(texts: list[str]) -> list[list[int]]:
        return tokenizer(texts, truncation=False, add_special_tokens=False, verbose=False)["input_ids"]

    inner, places, first = length - 2, [], -1
    for ids, vectors in zip(ids_of(list(words)) if words else [], words.values(), strict=True):
        places.append((ids, [first - at for at in range(len(vectors))]))
        first -= len(vectors)
    # The longest match counts, as there.
    places.sort(key=lambda place: -len(place[0]))
    lines = [_cut(_pieces(ids, places), inner) for ids in ids_of(list(prompts))]
    count = max(1, *map(len, lines))
    start, end, pad = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
    chunks = []
    for chunk in range(count):
        parts = [line[chunk] if chunk < len(line) else [] for line in lines]
        chunks.append(torch.tensor([[start, *part, end, *[pad] * (inner - len(part))] for part in parts]))
    return chunks


def _pieces(ids: list[int], places: Sequence[tuple[list[int], list[int]]]) -> Iterator[list[int]]:
    """Each token by itself, and the vectors of a word together."""
    at = 0
    while at < len(ids):
        match = next(((word, marks) for word, marks in places if word and ids[at : at + len(word)] == word), None)
        yield match[1] if match else [ids[at]]
        at += len(match[0]) if match else 1


def _cut(pieces: Iterator[list[int]], length: int) -> list[list[int]]:
    chunks: list[list[int]] = []
    for piece in pieces:
        if not chunks or len(chunks[-1]) + len(piece) > length:
            chunks.append([])
        chunks[-1] += piece
    return chunks


@contextmanager
def vectors_in_place(encoder: nn.Module, words: Mapping[str, Tensor]) -> Iterator[None]:
    """While entered, the encoder reads the negative tokens of `token_chunks` as these words' vectors."""
    if not words:
        yield
        return
    table = torch.cat([vectors.to(encoder.device) for vectors in words.values()])

    def wrap(_module: nn.Module, forward: Forward) -> Forward:
        def embed(ids: Tensor) -> Tensor:
            rows = forward(ids.clamp(min=0))
            return torch.where((ids < 0)[..., None], table.to(rows.dtype)[(-1 - ids).clamp(min=0)], rows)

        return embed

    with overridden_forward([encoder.get_input_embeddings()], wrap):
        yield
