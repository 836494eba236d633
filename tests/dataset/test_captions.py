import random

import pytest

from lib_trainer.dataset.captions import (
    caption_endings,
    caption_of,
    caption_variants,
    has_word,
    put_first,
    read_captions,
)
from lib_trainer.errors import UserError
from tests.dataset.tiny import make_config

CAPTION = "jeff_person, portrait photo , looking at camera,smile"


TEXT = "jeff, café, 写真 of jeff"


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"jeff_person, smile", ("jeff_person, smile",)),
        (b"jeff\n\n smiles\r\n\twide\rnow\n", ("jeff", "smiles", "wide", "now")),
        (b"jeff\x00\x1b[31m smile", ("jeff [31m smile",)),
        (b"  \n", ()),
        (b"", ()),
    ],
)
def test_each_line_of_a_caption_file_is_a_caption(tmp_path, data, lines):
    path = tmp_path / "a.txt"
    path.write_bytes(data)
    assert read_captions(path) == lines


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]
)
def test_unicode_is_read_with_and_without_a_byte_order_mark(tmp_path, encoding):
    (tmp_path / "a.txt").write_bytes(TEXT.encode(encoding))
    assert read_captions(tmp_path / "a.txt") == (TEXT,)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ("девушка стоит у моря".encode("cp1251"), r"not Unicode text \(perhaps cp1251\)"),
        (b"caf\xe9 au lait", "not Unicode text"),
        (b"a" * 70_000, "longer than 64 KiB"),
    ],
)
def test_what_is_no_caption_is_refused_by_name(tmp_path, data, problem):
    (tmp_path / "a.txt").write_bytes(data)
    with pytest.raises(UserError, match=problem) as caught:
        read_captions(tmp_path / "a.txt")
    assert "UTF-8" in caught.value.hint


def test_of_several_lines_the_first_is_used_or_each_or_all():
    lines = ("jeff at the beach,", "smile", "photo of jeff")
    assert caption_of(lines, make_config()) == ("jeff at the beach,",)
    assert caption_of(lines, make_config(caption_lines="random")) == lines
    assert caption_of(lines, make_config(caption_lines="all")) == ("jeff at the beach, smile, photo of jeff",)
    assert caption_of((), make_config(caption_lines="all")) == ()


def test_a_word_is_found_by_itself_only():
    assert has_word("jeff", "a photo of Jeff, smiling") and has_word("(jeff)", "x (jeff)")
    assert not has_word("jeff", "jeffrey smiles") and not has_word("jeff", "")


def test_the_word_is_put_first_once():
    assert put_first("jeff", "smile, jeff, hat") == "jeff, smile, hat"
    assert put_first("jeff", "photo of jeff") == "jeff, photo of jeff"
    assert put_first("jeff", "") == put_first("jeff", "Jeff") == "jeff"


def test_the_configured_ending_comes_first():
    assert caption_endings(make_config(caption_extension=".tags")) == (".tags", ".txt", ".caption")
    assert caption_endings(make_config(caption_extension="CAPTION")) == (".caption", ".txt")


def test_without_shuffling_a_caption_stays_as_it_is():
    assert caption_variants(CAPTION, make_config(keep_tokens=1), random.Random(1)) == (CAPTION,)


def test_shuffled_versions_keep_the_first_parts_and_lose_none():
    config = make_config(shuffle_caption=True, keep_tokens=2, caption_variants=50)
    variants = caption_variants(CAPTION, config, random.Random(1))
    assert sorted(variants) == [
        "jeff_person, portrait photo, looking at camera, smile",
        "jeff_person, portrait photo, smile, looking at camera",
    ]


def test_versions_are_bounded_distinct_and_follow_from_the_seed():
    config = make_config(shuffle_caption=True, caption_variants=6)
    caption = ", ".join("abcdefgh")
    variants = caption_variants(caption, config, random.Random(1))
    assert len(set(variants)) == len(variants) == 6
    assert all(sorted(variant) == sorted(caption) for variant in variants)
    assert variants == caption_variants(caption, config, random.Random(1))
    assert variants != caption_variants(caption, config, random.Random(2))
