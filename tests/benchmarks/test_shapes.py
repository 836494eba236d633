"""The layers that are timed are the ones that training adapts."""

from __future__ import annotations

import pytest

pytest.importorskip("diffusers")
from benchmarks.shapes import shapes_of
from lib_trainer.models.families import SD1, SDXL


@pytest.mark.parametrize(("family", "size_px", "layers", "giga"), [(SD1, 512, 282, 338.6), (SDXL, 1024, 788, 2988.3)])
def test_every_layer_is_counted_with_its_multiply_adds(family, size_px, layers, giga) -> None:
    shapes = shapes_of(family, size_px)
    assert sum(shapes.values()) == layers
    assert sum(shape.multiply_adds * count for shape, count in shapes.items()) / 1e9 == pytest.approx(giga, abs=0.1)


def test_more_pictures_are_more_places() -> None:
    one, two = shapes_of(SD1, 64), shapes_of(SD1, 64, batch=2)
    assert len(one) <= len(two)
    assert sum(s.multiply_adds * n for s, n in two.items()) == 2 * sum(s.multiply_adds * n for s, n in one.items())
