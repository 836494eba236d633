"""Pictures in folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.dataset.tiny import TinyModel


@pytest.fixture
def model() -> TinyModel:
    return TinyModel()


@pytest.fixture
def draw_picture(tmp_path: Path) -> Callable[..., Path]:
    """Writes a picture, red on the left and blue on the right, under the test's folder."""

    def draw(name: str, width: int = 128, height: int = 128, caption: str | None = None, shade: int = 0) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = Image.new("RGB", (width, height), (200, shade, 0))
        picture.paste((0, shade, 200), (width // 2, 0, width, height))
        picture.save(path)
        if caption is not None:
            path.with_suffix(".txt").write_text(caption, encoding="utf-8")
        return path

    return draw
