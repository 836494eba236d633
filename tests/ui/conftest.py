"""The tab on a fake host, and a folder for it."""

from __future__ import annotations

import pytest

pytest.importorskip("gradio")

from tests.ui.fakes import draw_pictures
from tests.ui.tab_page import Page


@pytest.fixture
def page(tmp_path):
    return Page(tmp_path)


@pytest.fixture
def pictures(tmp_path):
    return str(draw_pictures(tmp_path / "pictures", count=4, side_px=800))
