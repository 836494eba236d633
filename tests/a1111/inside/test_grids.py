"""The contract of grids, on the real A1111."""

from __future__ import annotations

import pytest

from tests.fakes.a1111_room import A1111Room
from tests.host.contract_webui_grids import WebUIGrids
from tests.host.webui_grid_room import WebUIGridRoom


@pytest.fixture(scope="module")
def room(a1111: A1111Room) -> WebUIGridRoom:
    a1111.clean_picture()
    return WebUIGridRoom(a1111)


class TestGrids(WebUIGrids):
    pass
