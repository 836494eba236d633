"""Where the text encoder cuts a long caption."""

from __future__ import annotations

import pytest

from lib_trainer.workbench.chunks import chunk_starts


def pieces(text):
    """Two tokens a word, as a comma is one."""
    return 2 * len(text.split())


def words(count):
    return ", ".join(f"w{number}" for number in range(count))


@pytest.mark.parametrize(
    ("line", "starts"),
    [("", []), (words(37), []), (words(38), ["w37"]), (words(75), ["w37"]), (words(76), ["w37", "w75"])],
)
def test_each_further_chunk_begins_with_the_first_word_that_the_last_cannot_hold(line, starts):
    assert chunk_starts(line, pieces) == starts


def test_without_a_tokenizer_nothing_is_marked_and_a_long_text_is_cut_a_few_times_only():
    asked = []
    assert chunk_starts(words(99), lambda _text: None) == []
    assert len(chunk_starts(words(5000), lambda text: asked.append(text) or pieces(text))) == 8
    assert len(asked) < 150
