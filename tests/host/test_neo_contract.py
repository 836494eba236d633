"""The contract on the fake Forge Neo; `tests/neo` runs all of it on the real one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.neo_room import NeoRoom, fake_neo
from tests.host import contract_forge, contract_neo
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


@pytest.fixture(scope="module", params=["sd1.safetensors"])
def forge(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NeoRoom]:
    with fake_neo(tmp_path_factory.mktemp("neo"), request.param) as room:
        yield room


class TestForgeMemory(contract_forge.ForgeMemory):
    pass


class TestForgePrediction(contract_forge.ForgePrediction):
    pass


class TestNeoLoras(contract_neo.NeoLoras):
    pass


class TestNeoText(contract_neo.NeoText):
    pass


class TestLoras(FewerKinds, Loras):
    pass
