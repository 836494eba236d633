"""A crop keeps the face that is found."""

from __future__ import annotations

import pytest

from lib_trainer.dataset.editing.face_crop import crop_with_face
from tests.dataset.tiny import make_config

SQUARE = make_config(resolution_px=(128, 128), enable_bucket=False)


@pytest.mark.parametrize(
    ("face", "wanted"),
    [
        ((0.45, 0.2, 0.55, 0.4), None),
        ((0.1, 0.3, 0.2, 0.5), (0.07, 0.0, 0.57, 1.0)),
        ((0.85, 0.3, 0.95, 0.5), (0.48, 0.0, 0.98, 1.0)),
        ((0.0, 0.1, 0.1, 0.3), (0.0, 0.0, 0.5, 1.0)),
        # Larger than the crop can be: its middle stays.
        ((0.0, 0.0, 0.8, 1.0), None),
    ],
)
def test_a_wide_picture_is_cropped_around_the_face(face, wanted):
    found = crop_with_face(400, 200, face, SQUARE)
    assert found == (wanted and pytest.approx(wanted))


def test_a_tall_picture_keeps_a_face_at_the_top():
    left, top, right, bottom = crop_with_face(200, 400, (0.3, 0.05, 0.7, 0.25), SQUARE)
    assert (left, right) == (0, 1) and top == 0 and bottom == pytest.approx(0.5)


def test_a_picture_of_its_buckets_shape_is_left_alone():
    assert crop_with_face(256, 256, (0, 0, 0.2, 0.2), SQUARE) is None
