"""Whole runs on the fake reForge; `tests/reforge` runs the same on the real one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.reforge_room import ReforgeRoom, fake_reforge
from tests.host.contract_runs import Runs, pictures  # noqa: F401 - a fixture


@pytest.fixture(scope="module", params=["sd1.safetensors"])
def room(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReforgeRoom]:
    with fake_reforge(tmp_path_factory.mktemp("reforge"), request.param) as room:
        yield room


class TestRuns(Runs):
    pass
