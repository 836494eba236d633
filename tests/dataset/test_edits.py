"""What a person decides beside the pictures: written, read again, trained by, and not trusted."""

from __future__ import annotations

import os
import threading

import pytest
import torch

from lib_trainer.dataset.cache import cache_latents
from lib_trainer.dataset.edits import PictureEdit, change_edits, read_edits, valid_crop
from lib_trainer.dataset.fingerprint import fingerprint
from lib_trainer.dataset.sampler import Schedule
from lib_trainer.dataset.scan import scan_folder
from lib_trainer.errors import NotWritten, UserError
from tests.dataset.tiny import drive, make_config, make_recipe

LEFT_HALF = PictureEdit(crop=(0, 0, 0.5, 1))


def test_exclusions_and_crops_are_what_a_run_sees(tmp_path, draw_picture):
    for name in "abc":
        draw_picture(f"5_jeff/{name}.png", 128, 64, caption=name)
    folder = tmp_path / "5_jeff"
    change_edits(folder, {"b.png": PictureEdit(excluded=True), "c.png": LEFT_HALF})
    scan = scan_folder(make_config(tmp_path))
    assert [sample.image.name for sample in scan.samples] == ["a.png", "c.png"]
    assert [sample.image.name for sample in scan.excluded] == ["b.png"]
    assert [(sample.width_px, sample.crop_px) for sample in scan.samples] == [(128, None), (64, (0, 0, 64, 64))]
    assert scan.skipped == ()
    change_edits(folder, {"b.png": PictureEdit()})
    assert [sample.caption for sample in scan_folder(make_config(tmp_path)).samples] == ["a", "b", "c"]


def test_only_the_cropped_part_is_encoded_and_its_cache_is_its_own(tmp_path, draw_picture, model):
    draw_picture("data/a.png", 128, 64)
    recipe, cache = make_recipe(tmp_path / "data"), tmp_path / "cache"

    def encode():
        scan = scan_folder(recipe.dataset)
        _, store = drive(cache_latents(Schedule(scan, recipe), model, cache))
        return store.read(0, 0)[0], fingerprint(scan)

    whole, plain = encode()
    change_edits(tmp_path / "data", {"a.png": LEFT_HALF})
    left, cropped = encode()
    # Red on the left, blue on the right; pixels are −1…1.
    assert left.shape == (4, 8, 8) and torch.all(left[0] > 0.5) and torch.all(left[2] < -0.9)
    assert whole.shape == (4, 8, 16) and plain != cropped
    # Of the same size and from the same file, and still another picture.
    change_edits(tmp_path / "data", {"a.png": PictureEdit(crop=(0.5, 0, 1, 1))})
    right, moved = encode()
    assert torch.all(right[0] < -0.9) and torch.all(right[2] > 0.5) and moved != cropped
    change_edits(tmp_path / "data", {"a.png": PictureEdit()})
    assert torch.equal(encode()[0], whole)


def test_a_folder_of_the_class_stays_one_whatever_is_decided_about_its_pictures(tmp_path, draw_picture):
    draw_picture("a.png")
    change_edits(tmp_path, {}, regularisation=True)
    change_edits(tmp_path, {"a.png": LEFT_HALF})
    assert [sample.regularising for sample in scan_folder(make_config(tmp_path)).samples] == [True]
    change_edits(tmp_path, {}, regularisation=False)
    assert read_edits(tmp_path).of("a.png") == LEFT_HALF
    assert [sample.regularising for sample in scan_folder(make_config(tmp_path)).samples] == [False]


def test_all_excluded_is_said(tmp_path, draw_picture):
    draw_picture("a.png")
    change_edits(tmp_path, {"a.png": PictureEdit(excluded=True)})
    with pytest.raises(UserError, match="All 1 pictures"):
        scan_folder(make_config(tmp_path))


@pytest.mark.parametrize(
    "text",
    [
        b"not json", b"[]", b'{"pictures": 3}', b'{"pictures": {"a.png": 5}}', b'{"pictures": {"a": {"crop": "x"}}}',
        b'{"pictures": {"a.png": {"crop": [0, 0, 1e400, 1]}}}', b'{"pictures": {"a.png": {"crop": [0.5, 0, 0.5, 1]}}}',
        b"[" * 100_000, b"\xff\xfe",
    ],
)  # fmt: skip
def test_a_file_that_is_not_ours_is_named_and_not_written_over(tmp_path, draw_picture, text):
    draw_picture("a.png")
    (tmp_path / ".train_lora").mkdir()
    (tmp_path / ".train_lora/pictures.json").write_bytes(text)
    scan = scan_folder(make_config(tmp_path))
    assert len(scan.samples) == 1 and "exclusions and crops do not act" in scan.skipped[0].reason
    with pytest.raises(NotWritten, match="cannot be used"):
        change_edits(tmp_path, {"a.png": LEFT_HALF})
    assert (tmp_path / ".train_lora/pictures.json").read_bytes() == text


def test_two_people_at_once_lose_nothing(tmp_path):
    def decide(person):
        for number in range(10):
            change_edits(tmp_path, {f"{person}{number}.png": PictureEdit(excluded=True)})

    people = [threading.Thread(target=decide, args=(name,)) for name in "ab"]
    for person in people:
        person.start()
    for person in people:
        person.join()
    assert len(read_edits(tmp_path).pictures) == 20


def test_a_folder_that_cannot_be_written_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "replace", lambda *_paths: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(NotWritten, match="No space left"):
        change_edits(tmp_path, {"a.png": LEFT_HALF})
    assert read_edits(tmp_path).pictures == {}


def test_a_crop_is_a_part_of_the_picture():
    assert valid_crop([0, 0, 1, 1]) is None and valid_crop([0.25, 0, 1, 0.5]) == (0.25, 0, 1, 0.5)
    for wrong in ([0, 0, 2, 1], [0.5, 0, 0.4, 1], [0, 0, 0.01, 1], [float("nan"), 0, 1, 1], [0, 0, 1]):
        with pytest.raises(ValueError):
            valid_crop(wrong)
