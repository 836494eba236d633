"""The contract of grids, on the real reForge."""

from __future__ import annotations

import pytest

from tests.fakes.reforge_room import ReforgeRoom
from tests.host.contract_webui_grids import WebUIGrids
from tests.host.webui_grid_room import WebUIGridRoom


@pytest.fixture(scope="module")
def room(reforge: ReforgeRoom) -> WebUIGridRoom:
    reforge.clean_picture()
    return WebUIGridRoom(reforge)


class TestGrids(WebUIGrids):
    pass
