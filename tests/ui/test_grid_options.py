"""Size, CFG and schedule of step 4: the loaded checkpoint's until a person sets them."""

from __future__ import annotations

import pytest

pytest.importorskip("gradio")

from lib_trainer.models.families import FLUX, SD1
from lib_trainer.ui.grid_actions import REMEMBERED
from tests.ui.grid_room import Room


@pytest.fixture
def room(tmp_path) -> Room:
    return Room(tmp_path)


def test_cfg_is_the_familys_until_a_person_sets_it_there(room):
    def offered() -> object:
        return dict(zip(REMEMBERED, room.actions.open_page()[4:], strict=False))["cfg"].get("value")

    room.made(cfg=5.5)
    assert offered() == 5.5
    room.host.drawing_family = lambda: FLUX
    assert offered() == 1, "5.5 was of another family"
    room.made(cfg=2.5)
    assert offered() == 2.5


def test_size_and_cfg_follow_another_checkpoint_while_they_are_the_usual_ones(room, monkeypatch):
    def follow(*values: float) -> list[object]:
        return [update.get("value") for update in room.actions.follow_checkpoint(*values)]

    for family in (FLUX, SD1):
        monkeypatch.setattr(room.host, "drawing_family", lambda family=family: family)
        monkeypatch.setattr(room.host, "drawing_size_px", lambda family=family: family.native_size_px)
        assert follow(640, 512, 5.5) == [None] * 3, "a person's own"
        other = (512, 512, 7.0) if family is FLUX else (1024, 1024, 1.0)
        assert follow(*other) == ([1024, 1024, 1.0] if family is FLUX else [512, 512, 7.0])
    assert follow(512, 512, 7.0) == [None] * 3, "nothing to change"


def test_without_schedule_types_there_is_no_list_of_them(room):
    place = 4 + REMEMBERED.index("schedule")
    assert "visible" not in room.actions.open_page()[place]
    room.host.schedulers = list
    assert room.actions.open_page()[place]["visible"] is False
