"""A run that is watched, on the fake Forge; `tests/forge` has the real one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.forge_room import ForgeRoom, fake_forge
from tests.host.contract_forge import ForgeWatching
from tests.host.contract_runs import pictures  # noqa: F401 - a fixture
from tests.host.contract_watching import Watching, jobs  # noqa: F401 - a fixture


@pytest.fixture(scope="module")
def forge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForgeRoom]:
    with fake_forge(tmp_path_factory.mktemp("forge"), "sd1.safetensors") as room:
        yield room


class TestWatching(Watching):
    pass


class TestForgeWatching(ForgeWatching):
    pass
