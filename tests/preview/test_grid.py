"""The grid: which prompts are drawn, and where each picture lands."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFont

from lib_trainer.preview import grid
from lib_trainer.preview.grid import GAP_PX, Column, label_grid, prompt_grid, strength_grid


class Painter:
    """Draws every prompt in a colour of its own."""

    def __init__(self, size: tuple[int, int] = (64, 48)) -> None:
        self.size, self.colours = size, {}

    def __call__(self, prompt: str) -> Image.Image:
        colour = self.colours.setdefault(prompt, (20 * len(self.colours) + 10, 200, 100))
        return Image.new("RGB", self.size, colour)


def patches(picture: Image.Image, colours) -> list[tuple[int, int, int, int]]:
    """The box that each colour fills."""
    boxes = []
    for colour in colours:
        rows, columns = np.nonzero((np.asarray(picture) == colour).all(axis=2))
        left, top, right, bottom = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
        assert len(rows) == (right - left) * (bottom - top), "the patch is whole"
        boxes.append((left, top, right, bottom))
    return boxes


def test_every_prompt_is_drawn_at_every_strength():
    painter = Painter()
    strength_grid(painter, ["jeff on a beach", "a cat"], "jeff", [0, 0.5, 1.0])
    assert list(painter.colours) == [
        "jeff on a beach",
        "jeff on a beach <lora:jeff:0.5>",
        "jeff on a beach <lora:jeff:1>",
        "a cat",
        "a cat <lora:jeff:0.5>",
        "a cat <lora:jeff:1>",
    ]


def test_a_second_lora_takes_part_in_every_picture():
    painter = Painter()
    strength_grid(painter, ["p"], "jeff", [0, 0.8], other=("style", 0.6))
    assert list(painter.colours) == ["p <lora:style:0.6>", "p <lora:jeff:0.8> <lora:style:0.6>"]


def test_columns_may_be_anything():
    painter = Painter()
    prompt_grid(painter, ["p"], [Column("plain"), Column("both", "<lora:a:1> <lora:b:1>")])
    assert list(painter.colours) == ["p", "p <lora:a:1> <lora:b:1>"]


def test_pictures_stand_in_rows_and_columns_whole_and_enlarged():
    painter = Painter()
    picture = strength_grid(painter, ["one", "two " * 60], "x", [0, 1])
    boxes = patches(picture, painter.colours.values())
    assert {(right - left, bottom - top) for left, top, right, bottom in boxes} == {(192, 144)}
    (a, b, c, d) = boxes
    assert a[1] == b[1] < c[1] == d[1]
    assert a[0] == c[0] == GAP_PX
    assert b[0] == d[0] == GAP_PX + 192 + GAP_PX
    # The long prompt takes more lines than the short one.
    assert c[1] - a[3] > a[1] / 2 + 20
    assert picture.size[0] == d[2] + GAP_PX
    assert picture.size[1] == d[3] + GAP_PX


def test_large_pictures_keep_their_size():
    pictures = [[Image.new("RGB", (200, 300), (9, 9, 9))]]
    left, top, right, bottom = patches(label_grid(pictures, ["p"], ["c"]), [(9, 9, 9)])[0]
    assert (right - left, bottom - top) == (200, 300)


@pytest.mark.parametrize("old_pillow", [False, True])
def test_labels_are_written_in_any_alphabet(old_pillow, monkeypatch):
    if old_pillow:
        monkeypatch.setattr(grid, "_font", lambda: ImageFont.load_default_imagefont())
        if not hasattr(ImageFont, "load_default_imagefont"):
            monkeypatch.setattr(grid, "_font", ImageFont.load_default)
    white = label_grid([[Image.new("RGB", (64, 64), "white")]], [""], [""])
    written = label_grid([[Image.new("RGB", (64, 64), "white")]], ["日本 café"], ["ж 1"])
    assert white.getcolors() == [(white.width * white.height, (255, 255, 255))]
    assert len(written.getcolors()) > 1
