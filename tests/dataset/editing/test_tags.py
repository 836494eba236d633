"""Tags of captions: booru tags, spelled-out tags and sentences."""

from __future__ import annotations

import pytest

from lib_trainer.dataset.editing.bulk import Change
from lib_trainer.dataset.editing.tag_table import has_tag, tag_table
from lib_trainer.errors import UserError


@pytest.mark.parametrize(
    ("change", "before", "after"),
    [
        (Change("first", "jeff"), "smile, JEFF, hat", "jeff, smile, hat"),
        (Change("first", "jeff"), "a man smiles", "jeff, a man smiles"),
        (Change("first", "jeff"), "", "jeff"),
        (Change("first", "rin_(vocaloid)"), r"smile, rin \(vocaloid\)", "rin_(vocaloid), smile"),
        (Change("add", "hat, blue eyes"), "jeff, blue_eyes", "jeff, blue_eyes, hat"),
        (Change("add", "hat"), "", "hat"),
        (Change("add", "hat, Hat, big_hat, big hat"), "jeff", "jeff, hat, big_hat"),
        (Change("remove", "Blue Eyes"), "jeff, blue_eyes, hat", "jeff, hat"),
        (Change("remove", "eyes"), "jeff, blue_eyes", "jeff, blue_eyes"),
        (Change("remove", "hat"), "", ""),
        (Change("replace", "man", "person"), "jeff, a man smiles", "jeff, a person smiles"),
        (Change("replace", "hat", ""), "jeff, hat, smile", "jeff, smile"),
        (Change("sort"), "jeff, smile, _hat, Blue", "jeff, Blue, _hat, smile"),
        (Change("dedupe"), "jeff, blue eyes, smile, Blue_Eyes", "jeff, blue eyes, smile"),
        (Change("dedupe"), "jeff,  smile", "jeff,  smile"),
        (Change("first", "jeff"), "smile\nhat, jeff", "jeff, smile\njeff, hat"),
    ],
)
def test_a_change_to_a_caption(change, before, after):
    assert change.apply(before) == after
    if change.action not in ("replace",):
        assert change.apply(after) == after, "done twice it does nothing more"


def test_a_change_without_words_is_refused():
    with pytest.raises(UserError, match="no text"):
        Change("replace", "  ")
    with pytest.raises(UserError, match="not something"):
        Change("eval", "x")


def test_the_table_counts_captions_and_names_what_stands_in_all_of_them():
    table = tag_table(["jeff, smile\njeff, hat", "Jeff, blue_eyes", "jeff, blue eyes, smile"])
    assert [(row.tag, row.count, row.everywhere) for row in table] == [
        ("jeff", 3, True), ("blue_eyes", 2, False), ("smile", 2, False), ("hat", 1, False),
    ]  # fmt: skip
    assert has_tag("a\njeff, Blue_Eyes", "blue eyes") and not has_tag("blue eyes open", "blue eyes")


def test_one_caption_has_nothing_in_common() -> None:
    assert not any(row.everywhere for row in tag_table(["jeff, hat"]))
