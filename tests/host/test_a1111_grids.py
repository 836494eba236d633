"""The contract of grids on the fake A1111."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.a1111_room import fake_a1111
from tests.host.contract_webui_grids import WebUIGrids
from tests.host.webui_grid_room import WebUIGridRoom


@pytest.fixture(scope="module", params=["sd1.safetensors"])
def room(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebUIGridRoom]:
    with fake_a1111(tmp_path_factory.mktemp("a1111"), request.param) as webui:
        webui.clean_picture()
        yield WebUIGridRoom(webui)


class TestGrids(WebUIGrids):
    pass
