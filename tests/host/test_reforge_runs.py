"""Whole runs on the fake reForge, without those of which Forge's and A1111's say as much; the real one has all."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.reforge_room import ReforgeRoom, fake_reforge
from tests.host.contract_runs import HostRuns, pictures  # noqa: F401 - a fixture


@pytest.fixture(scope="module", params=["sd1.safetensors"])
def room(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReforgeRoom]:
    with fake_reforge(tmp_path_factory.mktemp("reforge"), request.param) as room:
        yield room


class TestRuns(HostRuns):
    pass
