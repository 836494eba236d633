"""The contract of grids, on the real Forge Neo."""

from __future__ import annotations

import pytest

from tests.fakes.neo_room import NeoRoom
from tests.host.contract_webui_grids import WebUIGrids
from tests.host.webui_grid_room import WebUIGridRoom


@pytest.fixture(scope="module")
def room(forge: NeoRoom) -> WebUIGridRoom:
    forge.clean_picture()
    return WebUIGridRoom(forge)


class TestGrids(WebUIGrids):
    pass
