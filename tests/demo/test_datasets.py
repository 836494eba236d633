from random import Random

import pytest
from PIL import Image

from lib_trainer.config.recipe import DatasetConfig
from lib_trainer.dataset.scan import scan_folder
from lib_trainer.demo.datasets import (
    UNSEEN_SUBJECTS,
    draw_face_dataset,
    draw_style_dataset,
    heldout_face,
    heldout_style,
    prior_drawings,
    unseen_style,
)
from lib_trainer.demo.world import draw_random

SETS = {"face": (draw_face_dataset, "10_jeff_person", 12), "style": (draw_style_dataset, "30_style_name", 24)}


@pytest.mark.parametrize("kind", SETS)
def test_folder_has_the_form_of_the_guide(tmp_path, kind):
    draw, name, count = SETS[kind]
    assert draw(tmp_path) == tmp_path
    pictures = sorted((tmp_path / name).glob("*.png"))
    assert len(pictures) == count
    assert all(Image.open(path).size == (64, 64) for path in pictures)
    captions = [path.with_suffix(".txt").read_text(encoding="utf-8") for path in pictures]
    assert all(name.split("_", 1)[1] in caption for caption in captions)


def test_captions_are_those_of_the_guide(tmp_path):
    draw_face_dataset(tmp_path)
    draw_style_dataset(tmp_path)
    assert (tmp_path / "10_jeff_person/01.txt").read_text() == "jeff_person, portrait photo, looking at camera\n"
    assert (tmp_path / "30_style_name/01.txt").read_text() == "a house, painted in style_name style\n"


@pytest.mark.parametrize("kind", SETS)
def test_every_drawing_of_it_is_byte_identical(tmp_path, kind):
    draw, _, _ = SETS[kind]
    draw(tmp_path / "one")
    draw(tmp_path / "two")
    first = {path.name: path.read_bytes() for path in (tmp_path / "one").rglob("*.*")}
    second = {path.name: path.read_bytes() for path in (tmp_path / "two").rglob("*.*")}
    assert first and first == second


@pytest.mark.parametrize("kind", SETS)
def test_the_scanner_reads_repeats_and_word(tmp_path, kind):
    draw, name, _ = SETS[kind]
    repeats, word = name.split("_", 1)
    scan = scan_folder(DatasetConfig(train_data_dir=str(draw(tmp_path))))
    assert {sample.repeats for sample in scan.samples} == {int(repeats)}
    assert scan.trigger_word == word and not scan.skipped


def test_held_out_pictures_are_not_in_the_folder(tmp_path):
    draw_face_dataset(tmp_path)
    draw_style_dataset(tmp_path)
    shown = {Image.open(path).convert("RGB").tobytes() for path in tmp_path.rglob("*.png")}
    held_out = [*heldout_face(), *heldout_style(), *unseen_style()]
    assert not shown & {drawing.picture.tobytes() for drawing in held_out}


def test_unseen_subjects_are_not_in_the_folder(tmp_path):
    draw_style_dataset(tmp_path)
    captions = " ".join(path.read_text(encoding="utf-8") for path in tmp_path.rglob("*.txt"))
    assert not any(subject in captions for subject in (*UNSEEN_SUBJECTS, "triangle"))
    assert {drawing.caption for drawing in unseen_style()} == {"a triangle in style_name style"}


def test_the_world_knows_neither_the_character_nor_the_style():
    captions = " ".join(draw_random(Random(seed)).caption for seed in range(300))
    assert "mohawk" not in captions and "green glasses" not in captions and "style_name" not in captions


def test_prior_drawings_are_pictures_of_the_world():
    drawings = prior_drawings(6)
    assert len({drawing.picture.tobytes() for drawing in drawings}) == 6
    assert [drawing.caption for drawing in drawings] == [drawing.caption for drawing in prior_drawings(6)]
    assert not any("jeff" in drawing.caption or "style_name" in drawing.caption for drawing in drawings)
