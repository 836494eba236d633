"""Pictures one after another: each once, compared with strength 0, and never half-drawn."""

from __future__ import annotations

import gc
import weakref

import pytest
from PIL import Image

from lib_trainer.errors import UserError
from lib_trainer.host.base import GenerateRequest
from lib_trainer.lora.tags import LoraRef
from lib_trainer.models.families import SDXL
from lib_trainer.preview.drawing import difference, draw_cells
from lib_trainer.preview.grid_spec import checkpoint_grid, strength_grid
from tests.fakes.easel import Easel

BASE = GenerateRequest("", width_px=16, height_px=16)


@pytest.fixture
def easel(tmp_path) -> Easel:
    easel = Easel(tmp_path)
    easel.put("jeff", "jeff-000001")
    return easel


def plan_of(strengths=(0, 0.5, 1), prompts=("p", "q")):
    return strength_grid(BASE, prompts, [1], LoraRef("jeff"), strengths)


def test_every_cell_is_drawn_with_its_infotext(easel):
    drawn = list(draw_cells(easel, plan_of()))
    assert [item.cell for item in drawn] == list(plan_of().cells)
    assert [item.infotext.splitlines()[0] for item in drawn] == [cell.request.prompt for cell in plan_of().cells]
    assert easel.expected == [6]


def test_the_change_is_from_strength_0_in_the_same_row(easel):
    drawn = list(draw_cells(easel, plan_of()))
    for item in drawn:
        row = [other for other in drawn if other.cell.row == item.cell.row]
        wanted = None if item.cell.column == 0 else difference(row[0].picture, item.picture)
        assert item.change == wanted


def test_strength_0_is_drawn_first_wherever_it_stands(easel):
    drawn = list(draw_cells(easel, plan_of(strengths=(0.5, 0, 1))))
    assert [item.cell.column for item in drawn] == [1, 0, 2] * 2
    assert all(item.change is not None for item in drawn if item.cell.column != 1)


def test_without_strength_0_nothing_is_compared(easel):
    assert all(item.change is None for item in draw_cells(easel, plan_of(strengths=(0.5, 1))))


def test_a_row_whose_strength_0_was_skipped_is_not_compared_with_another(easel, monkeypatch):
    generate = easel.generate
    monkeypatch.setattr(easel, "generate", lambda request: [] if request.prompt == "q" else generate(request))
    changes = {(item.cell.row, item.cell.column): item.change for item in draw_cells(easel, plan_of())}
    assert changes[0, 1] is not None and changes[1, 1] is None and changes[1, 2] is None


def test_the_same_picture_is_drawn_once(easel):
    spec = checkpoint_grid(BASE, ["p"], [1], [("jeff-000001", "epoch 1"), ("jeff", "final")], [0, 1])
    drawn = list(draw_cells(easel, spec))
    assert len(drawn) == 4
    assert [request.prompt for request in easel.requests] == ["p", "p <lora:jeff-000001:1>", "p <lora:jeff:1>"]


def test_it_stops_between_pictures(easel):
    drawn = []
    for item in draw_cells(easel, plan_of(), lambda: len(drawn) == 2):
        drawn.append(item)
    assert len(drawn) == 2


def test_an_interrupted_picture_is_left_out_and_none_follows(easel):
    drawn, asked, generate = [], [], easel.generate
    easel.generate = lambda request: asked.append(request) or generate(request)
    for item in draw_cells(easel, plan_of()):
        drawn.append(item)
        easel.interrupt = len(drawn) == 3
    assert len(drawn) == 3
    assert len(asked) == 3, "a WebUI forgets Interrupt when the next picture begins"


def test_missing_misspelt_and_misfitting_names_are_said_before_anything_is_drawn(easel):
    spec = strength_grid(BASE, ["p <lora:Jef:1> <lora:style:0.6>"], [1], LoraRef("jeff"), [1])
    with pytest.raises(UserError, match=r"Jef, style.*Did you mean jeff\?"):
        list(draw_cells(easel, spec))
    easel.put("strange")
    (easel.lora_dir / "strange.json").write_text('{"sd version": "SDXL"}', encoding="utf-8")
    spec = strength_grid(BASE, ["p"], [1], LoraRef("strange"), [1])
    with pytest.raises(UserError, match=r"made for SDXL.*SD 1\.x"):
        list(draw_cells(easel, spec))
    assert not easel.requests
    easel.family = SDXL
    assert len(list(draw_cells(easel, spec))) == 1
    easel.family = None
    assert len(list(draw_cells(easel, spec))) == 1


def test_part_of_a_name_is_enough_for_a_hint(easel):
    easel.put("style_name_v2")
    with pytest.raises(UserError, match=r"Did you mean style_name_v2\?"):
        list(draw_cells(easel, strength_grid(BASE, ["p"], [1], LoraRef("style"), [1])))


def test_the_difference_is_a_share_of_black_to_white():
    black, white = (Image.new("RGB", (4, 4), colour) for colour in ("black", "white"))
    half = black.copy()
    half.paste((255, 255, 255), (0, 0, 2, 4))
    assert difference(black, black) == 0
    assert difference(black, white) == pytest.approx(100)
    assert difference(black, half) == pytest.approx(50)


def test_pictures_are_kept_in_files_that_go_with_the_grid(easel):
    drawn = list(draw_cells(easel, plan_of()))
    files = [item.file.path for item in drawn]
    assert all(path.is_file() for path in files) and len(set(files)) == 6
    assert drawn[1].picture.tobytes() == drawn[1].picture.tobytes() != drawn[2].picture.tobytes()
    last = drawn.pop()
    del drawn
    gc.collect()
    # One that is still shown keeps its file.
    assert last.picture.size == (16, 16)
    del last
    gc.collect()
    assert not any(path.exists() for path in files)


def test_a_grid_holds_no_more_than_two_pictures_in_memory(easel, monkeypatch):
    made, most = [], 0
    generate = easel.generate

    def counted(request):
        nonlocal most
        (picture,) = generate(request)
        made.append(weakref.ref(picture))
        gc.collect()
        most = max(most, sum(reference() is not None for reference in made))
        return [picture]

    monkeypatch.setattr(easel, "generate", counted)
    drawn = list(draw_cells(easel, plan_of(prompts=("p", "q", "r", "s"))))
    assert len(drawn) == 12 and most <= 2
