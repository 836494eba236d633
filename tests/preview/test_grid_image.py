"""The grid as one picture: where each lands, what stands beside it, and what the file says of it."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFont

from lib_trainer.host.base import GenerateRequest
from lib_trainer.lora.tags import LoraRef
from lib_trainer.preview import grid_image as grid
from lib_trainer.preview.drawing import Drawn, draw_cells
from lib_trainer.preview.grid_image import GAP_PX, MISSING, compose_grid, grid_infotext, label_grid
from lib_trainer.preview.grid_spec import strength_grid
from tests.fakes.easel import Easel, colour_of

BASE = GenerateRequest("", width_px=64, height_px=48)


@pytest.fixture
def easel(tmp_path) -> Easel:
    easel = Easel(tmp_path)
    easel.put("x")
    return easel


def patches(picture: Image.Image, colours) -> list[tuple[int, int, int, int]]:
    """The box that each colour fills."""
    boxes = []
    for colour in colours:
        rows, columns = np.nonzero((np.asarray(picture) == colour).all(axis=2))
        left, top, right, bottom = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
        assert len(rows) == (right - left) * (bottom - top), "the patch is whole"
        boxes.append((left, top, right, bottom))
    return boxes


def drawn_grid(easel, prompts, strengths) -> tuple[Image.Image, list[Drawn]]:
    spec = strength_grid(BASE, prompts, [1], LoraRef("x"), strengths)
    drawn = list(draw_cells(easel, spec))
    return compose_grid(spec, drawn), drawn


def test_pictures_stand_in_rows_and_columns_whole_and_enlarged(easel):
    picture, drawn = drawn_grid(easel, ["one", "two " * 60], [0, 1])
    boxes = patches(picture, [colour_of(item.cell.request) for item in drawn])
    assert {(right - left, bottom - top) for left, top, right, bottom in boxes} == {(192, 144)}
    (a, b, c, d) = boxes
    assert a[1] == b[1] < c[1] == d[1]
    assert a[0] == c[0] == GAP_PX
    assert b[0] == d[0] == GAP_PX + 192 + GAP_PX
    # The long prompt takes more lines than the short one.
    assert c[1] - a[3] > a[1] / 2 + 20
    assert picture.size[0] == d[2] + GAP_PX
    assert picture.size[1] == d[3] + GAP_PX


def test_what_is_not_drawn_stays_grey(easel):
    spec = strength_grid(BASE, ["p"], [1], LoraRef("x"), [0, 1])
    picture = compose_grid(spec, list(draw_cells(easel, spec))[1:])
    bottom = picture.height - 2 * GAP_PX
    assert picture.getpixel((2 * GAP_PX, bottom)) == MISSING
    assert picture.getpixel((3 * GAP_PX + 192, bottom)) == colour_of(spec.cells[1].request)


def test_large_pictures_keep_their_size_and_get_large_labels():
    def top_of(side: int) -> int:
        left, top, right, bottom = patches(
            label_grid([[Image.new("RGB", (side, side), (9, 9, 9))]], ["p"], ["c"]), [(9, 9, 9)]
        )[0]
        assert (right - left, bottom - top) == (side, side)
        return top

    assert top_of(1200) > 2 * top_of(200)


def test_the_infotext_is_the_first_pictures_and_says_what_is_compared(easel):
    _, drawn = drawn_grid(easel, ["p"], [0, 1])
    spec = strength_grid(BASE, ["p"], [1], LoraRef("x"), [0, 1])
    assert grid_infotext(spec, drawn) == (
        'p\nSteps: 20, Seed: 1, Script: Train LoRA grid, Grid: Strengths of x, Grid columns: "x 0, x 1"'
    )


def test_the_hosts_own_font_is_used_and_a_missing_one_is_no_trouble(tmp_path):
    pictures = [[Image.new("RGB", (64, 64), "white")]]
    own = label_grid(pictures, ["Text"], ["c"], tmp_path / "no such font.ttf")
    assert own.tobytes() == label_grid(pictures, ["Text"], ["c"]).tobytes()


@pytest.mark.parametrize("old_pillow", [False, True])
def test_labels_are_written_in_any_alphabet(old_pillow, monkeypatch):
    if old_pillow:
        load = getattr(ImageFont, "load_default_imagefont", ImageFont.load_default)
        monkeypatch.setattr(grid, "_font", lambda *_: load())
    white = label_grid([[Image.new("RGB", (64, 64), "white")]], [""], [""])
    written = label_grid([[Image.new("RGB", (64, 64), "white")]], ["日本 café"], ["ж 1"])
    assert white.getcolors() == [(white.width * white.height, (255, 255, 255))]
    assert len(written.getcolors()) > 1
