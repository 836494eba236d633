from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module

import pytest

from tests.fakes.forge_room import ForgeRoom, fake_forge
from tests.fakes.room import WebuiRoom


@pytest.fixture(scope="package", autouse=True)
def collected_quickly() -> Iterator[None]:
    """Every give-back collects garbage: that need not look through what the imports have made."""
    with suppress(ImportError):
        import_module("lycoris.modules.loha")
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="module", params=["sd1.safetensors", "sdxl.safetensors"])
def forge(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForgeRoom]:
    """A fake Forge for the tests of one module."""
    with fake_forge(tmp_path_factory.mktemp("forge"), request.param) as room:
        yield room


@pytest.fixture(scope="module")
def room(forge: ForgeRoom) -> WebuiRoom:
    """The WebUI that the contracts run in: Forge, unless a module has a `room` of its own."""
    return forge
