from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import pytest

from tests.fakes.a1111_start import running_a1111
from tests.fakes.forge_room import ForgeRoom, fake_forge
from tests.fakes.room import WebuiRoom
from tests.host.a1111_pictures import select


@pytest.fixture(scope="package", autouse=True)
def collected_quickly() -> None:
    """As in `pytest_collection_finish`, with what the first run would import."""
    with suppress(ImportError):
        import_module("lycoris.modules.loha")
    gc.freeze()


@pytest.fixture(scope="module")
def forge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForgeRoom]:
    """A fake Forge for the tests of one module."""
    with fake_forge(tmp_path_factory.mktemp("forge"), "sd1.safetensors") as room:
        yield room


@pytest.fixture(scope="module")
def room(forge: ForgeRoom) -> WebuiRoom:
    """The WebUI that the contracts run in: Forge, unless a module has a `room` of its own."""
    return forge


@pytest.fixture(scope="module")
def a1111_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A fake A1111's data folder, while it runs."""
    folder = tmp_path_factory.mktemp("a1111") / "data"
    with running_a1111(folder):
        select("sd1.safetensors")
        yield folder
