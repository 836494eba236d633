"""What choosing a picture changes on a card, and that nothing of a person's is lost by it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from lib_trainer.errors import UserError
from lib_trainer.lora.card import keep_picture, prefer_strength, save_prompts, saved_prompts
from lib_trainer.lora.info import LoraInfo


@pytest.fixture
def lora(tmp_path) -> LoraInfo:
    path = tmp_path / "v1.5 jeff.safetensors"
    path.write_bytes(b"")
    return LoraInfo("v1.5 jeff", path)


def card(lora: LoraInfo) -> dict:
    return json.loads(lora.path.with_suffix(".json").read_text(encoding="utf-8"))


def names(lora: LoraInfo) -> list[str]:
    return sorted(path.name for path in lora.path.parent.iterdir())


def picture(colour: str) -> Image.Image:
    return Image.new("RGB", (8, 8), colour)


def test_prompts_are_kept_on_a_card_that_is_there(lora):
    save_prompts(lora, ["a"])
    assert names(lora) == ["v1.5 jeff.safetensors"], "a file that is only tried gets no card"
    lora.path.with_suffix(".json").write_text('{"notes": "mine"}', encoding="utf-8")
    save_prompts(lora, ["a", "b"])
    assert saved_prompts(lora) == ["a", "b"]
    assert card(lora)["notes"] == "mine"


def test_a_card_that_is_broken_is_no_trouble(lora):
    lora.path.with_suffix(".json").write_text('{"test prompts": "no list"}', encoding="utf-8")
    assert saved_prompts(lora) == []


def test_the_strength_is_written_beside_what_is_there(lora):
    lora.path.with_suffix(".json").write_text('{"notes": "mine", "preferred weight": 1}', encoding="utf-8")
    prefer_strength(lora, 0.85)
    assert card(lora) == {"notes": "mine", "preferred weight": 0.85}


def test_the_picture_carries_its_infotext(lora):
    path = keep_picture(lora, picture("red"), "日本\nSteps: 1")
    assert path.name == "v1.5 jeff.png"
    with Image.open(path) as kept:
        assert kept.text["parameters"] == "日本\nSteps: 1"
        assert kept.getpixel((0, 0)) == (255, 0, 0)


def test_a_persons_own_picture_stays_under_another_name(lora):
    picture("blue").save(lora.path.with_suffix(".png"))
    picture("green").save(lora.path.with_name("v1.5 jeff.preview.jpg"))
    keep_picture(lora, picture("red"), "")
    keep_picture(lora, picture("white"), "")
    assert names(lora) == [
        "v1.5 jeff.old.png", "v1.5 jeff.png", "v1.5 jeff.preview.old.jpg", "v1.5 jeff.safetensors",
    ]  # fmt: skip
    with Image.open(lora.path.with_name("v1.5 jeff.old.png")) as old, Image.open(lora.path.with_suffix(".png")) as new:
        assert (old.getpixel((0, 0)), new.getpixel((0, 0))) == ((0, 0, 255), (255, 255, 255))


def test_a_second_one_put_aside_replaces_nothing(lora):
    for colour in ("blue", "green"):
        picture(colour).save(lora.path.with_suffix(".png"))
        keep_picture(lora, picture("red"), "")
    assert {"v1.5 jeff.old.png", "v1.5 jeff.old-2.png"} <= set(names(lora))


def test_a_folder_that_cannot_be_written_is_said(lora):
    gone = LoraInfo("x", Path(lora.path.parent, "file.safetensors", "x.safetensors"))
    lora.path.parent.joinpath("file.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="could not be written"):
        keep_picture(gone, picture("red"), "")


def test_a_picture_that_cannot_be_put_aside_is_said_and_stays(lora, monkeypatch):
    picture("blue").save(lora.path.with_suffix(".png"))

    def refuse(_source: object, _target: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.replace", refuse)
    with pytest.raises(UserError, match=r"v1.5 jeff.png could not be renamed: Permission denied\."):
        keep_picture(lora, picture("red"), "")
    with Image.open(lora.path.with_suffix(".png")) as kept:
        assert kept.getpixel((0, 0)) == (0, 0, 255)
