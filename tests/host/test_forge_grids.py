"""The contract of grids on the fake Forge; `tests/forge` runs the same on the real one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.forge_room import fake_forge
from tests.host.contract_webui_grids import WebUIGrids
from tests.host.webui_grid_room import WebUIGridRoom


@pytest.fixture(scope="module", params=["sdxl.safetensors"])
def room(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebUIGridRoom]:
    with fake_forge(tmp_path_factory.mktemp("forge"), request.param) as forge:
        forge.clean_picture()
        yield WebUIGridRoom(forge)


class TestGrids(WebUIGrids):
    pass
