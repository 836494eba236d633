"""The contract on the fake reForge; `tests/reforge` runs the same on the real one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.reforge_room import ReforgeRoom, fake_reforge
from tests.host.contract import (  # noqa: F401 - the tests
    TestDrawingWhileTraining,
    TestGenerationLock,
    TestImages,
    TestLayers,
    TestLoras,
    TestOpenModel,
    TestPrediction,
    TestText,
    TestWeights,
)


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReforgeRoom]:
    with fake_reforge(tmp_path_factory.mktemp("reforge"), "sd1.safetensors") as room:
        yield room
