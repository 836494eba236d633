"""Whole runs on the fake A1111, watched and unwatched; `tests/a1111` runs the same on the real one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.a1111_room import A1111Room, fake_a1111
from tests.host.contract_runs import Runs, pictures  # noqa: F401 - a fixture
from tests.host.contract_watching import Watching, jobs  # noqa: F401 - a fixture


@pytest.fixture(scope="module", params=["sd1.safetensors"])
def room(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[A1111Room]:
    with fake_a1111(tmp_path_factory.mktemp("a1111"), request.param) as room:
        yield room


class TestRuns(Runs):
    pass


class TestWatching(Watching):
    pass
