import random

import pytest

from lib_trainer.dataset.captions import caption_endings, caption_variants, read_caption
from lib_trainer.errors import UserError
from tests.dataset.tiny import make_config

CAPTION = "jeff_person, portrait photo , looking at camera,smile"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"jeff_person, smile", "jeff_person, smile"),
        ("\ufeffjeff, ü 写真".encode(), "jeff, ü 写真"),
        (b"jeff\nsmiles\r\n\twide\n", "jeff smiles wide"),
        ("jeff, smile".encode("utf-16"), "jeff, smile"),
        (b"jeff\x00\x1b[31m smile", "jeff [31m smile"),
        (b"  \n", ""),
        (b"", ""),
    ],
)
def test_a_caption_file_is_read_as_one_line(tmp_path, data, text):
    path = tmp_path / "a.txt"
    path.write_bytes(data)
    assert read_caption(path) == text


@pytest.mark.parametrize(
    ("data", "problem"), [(b"caf\xe9 \xff\xfe", "not UTF-8"), (b"a" * 70_000, "longer than 64 KiB")]
)
def test_what_is_no_caption_is_refused(tmp_path, data, problem):
    (tmp_path / "a.txt").write_bytes(data)
    with pytest.raises(UserError, match=problem):
        read_caption(tmp_path / "a.txt")


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
