"""Where a long caption is cut: text encoders read 75 tokens at a time."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable

CHUNK_TOKENS = 75
_MOST_CHUNKS = 8


def chunk_starts(line: str, count: Callable[[str], int | None]) -> list[str]:
    """The words with which the second chunk of a line begins, the third, and so on; [] for a short one.

    Args:
        count: the tokens of a text, None where that is not known. It is asked a few times a chunk.
    """
    tokens = count(line) or 0
    words = list(re.finditer(r"\S+", line))
    # The first word with which the text so far has more tokens than the chunks before can hold.
    starts = [
        bisect_left(words, limit + 1, key=lambda word: count(line[: word.end()]) or 0)
        for limit in range(CHUNK_TOKENS, min(tokens, _MOST_CHUNKS * CHUNK_TOKENS + 1), CHUNK_TOKENS)
    ]
    return [words[place].group().strip(",")[:40] for place in starts if place < len(words)]
