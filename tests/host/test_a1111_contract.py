"""The contract on the fake A1111; `tests/a1111` runs the same on the real one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.a1111_room import A1111Room, fake_a1111
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
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[A1111Room]:
    with fake_a1111(tmp_path_factory.mktemp("a1111"), "sd1.safetensors") as room:
        yield room
