"""Whole runs on the fake Forge with SDXL; `tests/test_run.py` has SD 1.x, `tests/forge` the real Forge."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.forge_room import ForgeRoom, fake_forge
from tests.host.contract_runs import Runs, pictures  # noqa: F401 - a fixture


@pytest.fixture(scope="module")
def forge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForgeRoom]:
    with fake_forge(tmp_path_factory.mktemp("forge"), "sdxl.safetensors") as room:
        yield room


class TestRuns(Runs):
    pass
