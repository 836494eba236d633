"""What SDXL changes in the contract, on the fake reForge: two text encoders, sizes, names, deeper transformers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.reforge_room import ReforgeRoom, fake_reforge
from tests.host.contract import (  # noqa: F401 - the tests
    TestLayers,
    TestLoras,
    TestOpenModel,
    TestPrediction,
    TestText,
)


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReforgeRoom]:
    with fake_reforge(tmp_path_factory.mktemp("reforge"), "sdxl.safetensors") as room:
        yield room
