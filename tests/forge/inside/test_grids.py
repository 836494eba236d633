"""The contract of grids, on the real Forge."""

from __future__ import annotations

import pytest

from tests.fakes.forge_room import ForgeRoom
from tests.host.contract_grids import WebUIGrids
from tests.host.webui_grid_room import WebUIGridRoom


@pytest.fixture(scope="session")
def room(forge: ForgeRoom) -> WebUIGridRoom:
    forge.clean_picture()
    return WebUIGridRoom(forge)


class TestGrids(WebUIGrids):
    pass
