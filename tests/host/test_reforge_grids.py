"""Grids on the fake reForge, where it differs from A1111; `tests/reforge` runs the whole contract on the real one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.reforge_room import fake_reforge
from tests.host.contract_webui_grids import WebUIGrids
from tests.host.webui_grid_room import WebUIGridRoom


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebUIGridRoom]:
    with fake_reforge(tmp_path_factory.mktemp("reforge"), "sd1.safetensors") as webui:
        webui.clean_picture()
        yield WebUIGridRoom(webui)


class TestNames:
    no_files_left = WebUIGrids.no_files_left
    test_refused = WebUIGrids.test_a_name_that_a_prompt_cannot_hold_is_refused
    test_called_by_its_alias = WebUIGrids.test_a_name_that_cannot_be_written_is_called_by_its_alias
