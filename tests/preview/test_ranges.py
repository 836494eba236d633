"""Strengths and seeds as people write them."""

from __future__ import annotations

import pytest

from lib_trainer.errors import UserError
from lib_trainer.preview.ranges import DEFAULT_STRENGTHS, read_seeds, read_strengths, show_strengths


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("0 · 0.5 · 0.7 · 0.85 · 1.0", (0, 0.5, 0.7, 0.85, 1)),
        ("0:1:0.25", (0, 0.25, 0.5, 0.75, 1)),
        ("0:1", (0, 0.25, 0.5, 0.75, 1)),
        ("0:0.5:0.1", (0, 0.1, 0.2, 0.3, 0.4, 0.5)),
        ("1:0:-0.5", (1, 0.5, 0)),
        ("0, 1; 0.5 1", (0, 1, 0.5)),
        ("-0.5", (-0.5,)),
        ("0:0:0.1", (0,)),
    ],
)
def test_strengths(text, values):
    assert read_strengths(text) == values


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no strengths"),
        ("strong", "'strong'"),
        ("0:1:0.25:2", "not a range"),
        ("0:1:0", "never gets"),
        ("1:0:0.5", "never gets"),
        ("0.5,nan", "'nan'"),
        ("8", "8 is too strong"),
        ("-8", "-8 is too strong"),
        ("0:5:0.01", "too many"),
        ("0:1e9:1e-9", "0:1e9:1e-9' has too many"),
        ("0:1:1e-9", "0:1:1e-9' has too many"),
        ("0:1:0.0000001 2", "0:1:0.0000001' has too many"),
    ],
)
def test_what_is_no_strength_is_named(text, said):
    with pytest.raises(UserError, match=said):
        read_strengths(text)


def test_fifty_strengths_are_the_most_however_they_are_written():
    listed = [f"{number / 100}" for number in range(51)]
    assert len(read_strengths(" ".join(listed[:50]))) == 50
    with pytest.raises(UserError, match="51 strengths are too many"):
        read_strengths(" ".join(listed))


def test_what_is_shown_is_read_again():
    assert read_strengths(show_strengths(DEFAULT_STRENGTHS)) == DEFAULT_STRENGTHS


def test_seeds():
    assert read_seeds("1, 2 3, 2") == (1, 2, 3)
    for wrong in ("", "-1", "1.5", "one"):
        with pytest.raises(UserError, match="not a seed"):
            read_seeds(wrong)
