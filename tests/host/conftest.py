from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.forge_room import ForgeRoom, fake_forge


@pytest.fixture(scope="module", params=["sd1.safetensors", "sdxl.safetensors"])
def forge(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForgeRoom]:
    """A fake Forge for the tests of one module."""
    with fake_forge(tmp_path_factory.mktemp("forge"), request.param) as room:
        yield room
