"""The pictures of the dataset's tests."""

from __future__ import annotations

from tests.dataset.conftest import draw_picture

__all__ = ["draw_picture"]
