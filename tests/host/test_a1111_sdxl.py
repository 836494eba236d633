"""What SDXL changes in the contract, on the fake A1111: two text encoders, sizes, names, deeper transformers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.a1111_room import A1111Room, fake_a1111
from tests.host.contract import (  # noqa: F401 - the tests
    TestLayers,
    TestLoras,
    TestOpenModel,
    TestPrediction,
    TestText,
)


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[A1111Room]:
    with fake_a1111(tmp_path_factory.mktemp("a1111"), "sdxl.safetensors") as room:
        yield room
