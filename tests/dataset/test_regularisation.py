"""Pictures of the class in kohya's regularisation folder: found, drawn as often as the others, and weighed."""

from __future__ import annotations

from collections import Counter

import pytest

from lib_trainer.dataset.edits import PictureEdit, change_edits
from lib_trainer.dataset.epoch_table import epoch_table
from lib_trainer.dataset.fingerprint import fingerprint
from lib_trainer.dataset.sampler import Schedule
from lib_trainer.dataset.scan import scan_folder
from lib_trainer.errors import ConfigError
from tests.dataset.tiny import make_config, make_recipe


@pytest.fixture
def both(tmp_path, draw_picture):
    """5 × 2 of the subject, and three of the class."""
    for name in ("img/5_jeff/a", "img/5_jeff/b", "reg/1_man/c", "reg/1_man/d", "reg/2_person/e"):
        draw_picture(f"{name}.png")
    (tmp_path / "reg/1_man/d.txt").write_text("[trigger], a man with a hat")
    return {"folder": tmp_path / "img", "reg_data_dir": str(tmp_path / "reg"), "trigger_word": "jeff"}


def test_the_class_is_drawn_as_often_as_the_subject_and_without_its_word(both):
    recipe = make_recipe(**both, trigger_word_first=True)
    scan = scan_folder(recipe.dataset)
    assert [(s.image.name, s.caption, s.repeats, s.regularising) for s in scan.samples] == [
        ("a.png", "jeff", 5, False), ("b.png", "jeff", 5, False),
        ("c.png", "man", 3, True), ("d.png", "man, a man with a hat", 3, True), ("e.png", "person", 4, True),
    ]  # fmt: skip
    drawn = Counter(
        scan.samples[draw.sample].regularising for batch in Schedule(scan, recipe).epoch(1) for draw in batch
    )
    assert drawn == {False: 10, True: 10} and scan.notices == ()
    rows = epoch_table(scan, draws=40)
    assert [(row.folder.name, row.shown_repeats, row.drawn, row.times, row.of_reg_folder) for row in rows] == [
        ("5_jeff", "5", 10, 10, False), ("1_man", "3", 6, 6, True), ("2_person", "4", 4, 8, True),
    ]  # fmt: skip


def test_more_of_the_class_than_is_drawn_of_the_subject_is_left_out_and_said(both, tmp_path):
    (tmp_path / "img/5_jeff").rename(tmp_path / "img/1_jeff")
    scan = scan_folder(make_config(**both))
    assert [s.image.name for s in scan.samples] == ["a.png", "b.png", "c.png", "d.png"]
    assert scan.notices[0].startswith("2 of 3 regularisation pictures are used")
    change_edits(tmp_path / "reg/1_man", {"c.png": PictureEdit(excluded=True)})
    scan = scan_folder(make_config(**both))
    assert [s.image.name for s in scan.samples] == ["a.png", "b.png", "d.png", "e.png"]


def test_a_regularisation_folder_that_cannot_be_used_is_said_at_its_own_setting(both, tmp_path):
    for name, said in (("nowhere", "does not exist"), ("empty", "no pictures")):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(ConfigError) as error:
            scan_folder(make_config(**{**both, "reg_data_dir": str(tmp_path / name)}))
        assert said in error.value.problems["reg_data_dir"]


def test_a_marked_folder_has_neither_the_trigger_word_nor_a_say_in_it(tmp_path, draw_picture):
    draw_picture("1_man/a.png")
    draw_picture("2_jeff/b.png")
    before = fingerprint(scan_folder(make_config(tmp_path)))
    change_edits(tmp_path / "1_man", {}, regularisation=True)
    scan = scan_folder(make_config(tmp_path))
    assert scan.trigger_word == "jeff"
    assert [sample.caption for sample in scan_folder(make_config(tmp_path, trigger_word="zxc")).samples] == [
        "man",
        "zxc",
    ]
    assert fingerprint(scan) != before, "a resumed run would learn something else"
