"""OpenCV's own cascade on drawn faces, where OpenCV is installed."""

from __future__ import annotations

import pytest

pytest.importorskip("cv2")

from lib_trainer.dataset.checks.check_folder import check_folder
from lib_trainer.dataset.checks.faces import area, face_finder
from lib_trainer.dataset.scan import scan_folder
from lib_trainer.demo.canvas import Canvas
from lib_trainer.demo.faces import Face, draw_face
from lib_trainer.demo.world import COLOURS, SKINS
from tests.dataset.tiny import make_config


def portrait(background, size=0.4, across=0.5):
    canvas = Canvas(384, COLOURS[background])
    canvas.place((across, 0.5), size, 0)
    draw_face(canvas, Face(skin=SKINS["light"], hair=(60, 40, 20), shirt=COLOURS["blue"]))
    return canvas.picture()


@pytest.mark.parametrize(("size", "across"), [(0.4, 0.5), (0.25, 0.3), (0.25, 0.7)])
def test_a_face_is_found_where_it_is(size, across):
    (box, *_others) = face_finder().boxes(portrait("gray", size, across).convert("L"))
    assert abs((box[0] + box[2]) / 2 - across) < 0.05 and 1 < area(box) / size**2 < 3


def test_close_ups_alone_are_said(tmp_path):
    for number, background in enumerate(("gray", "white", "pink", "orange", "brown", "green")):
        portrait(background).save(tmp_path / f"{number}.png")
    config = make_config(tmp_path)
    said = [
        item.sentence for item in check_folder(scan_folder(config), config) if getattr(item, "kind", "") == "framing"
    ]
    assert len(said) == 1 and "6 of 6 with a face are close-ups" in said[0]
