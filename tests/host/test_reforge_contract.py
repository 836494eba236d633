"""The contract on the fake reForge; `tests/reforge` runs all of it on the real one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.reforge_room import ReforgeRoom, fake_reforge
from tests.host.contract import (  # noqa: F401 - the tests
    TestDrawingWhileTraining,
    TestGenerationLock,
    TestImages,
    TestLayers,
    TestOpenModel,
    TestPrediction,
    TestText,
    TestWeights,
)
from tests.host.contract_loras import FewerKinds, Loras


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReforgeRoom]:
    with fake_reforge(tmp_path_factory.mktemp("reforge"), "sd1.safetensors") as room:
        yield room


class TestLoras(FewerKinds, Loras):
    pass
