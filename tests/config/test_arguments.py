"""Options as kohya writes them."""

from __future__ import annotations

from typing import Any

import pytest

from lib_trainer.config.arguments import parse_arguments


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("betas=0.9,0.99 d_coef=2", {"betas": (0.9, 0.99), "d_coef": 2}),
        ('"weight_decay=0.1" "decouple=True"', {"weight_decay": 0.1, "decouple": True}),
        ("'betas=(0.9, 0.99)' kind=linear", {"betas": (0.9, 0.99), "kind": "linear"}),
        ("a=__import__('os')", {"a": "__import__(os)"}),
    ],
)
def test_options_are_python_literals_or_text(text: str, expected: dict[str, Any]) -> None:
    assert parse_arguments(text) == expected


@pytest.mark.parametrize("text", ["a", "=1", "a=", "1=2", "'a=1", "a=1 b", "a=" + "1" * 3000])
def test_what_is_not_like_that_is_said(text: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_arguments(text)
    assert len(str(caught.value)) < 120


def test_nested_literals_do_not_exhaust_the_stack() -> None:
    assert parse_arguments("a=" + "(" * 900)
