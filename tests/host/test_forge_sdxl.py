"""What SDXL changes in the contract, on the fake Forge: two text encoders, sizes, names, deeper transformers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.forge_room import ForgeRoom, fake_forge
from tests.host.contract import (  # noqa: F401 - the tests
    TestLayers,
    TestLoras,
    TestOpenModel,
    TestPrediction,
    TestText,
)


@pytest.fixture(scope="module")
def forge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForgeRoom]:
    with fake_forge(tmp_path_factory.mktemp("forge"), "sdxl.safetensors") as room:
        yield room
