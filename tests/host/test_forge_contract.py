"""The contract on the fake Forge; `tests/forge` runs the same on the real one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.forge_room import ForgeRoom, fake_forge
from tests.host import contract_loras, contract_model
from tests.host.contract_borrowing import Borrowing
from tests.host.contract_turns import Turns


@pytest.fixture(scope="module", params=["sd1.safetensors", "sdxl.safetensors"])
def forge(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForgeRoom]:
    with fake_forge(tmp_path_factory.mktemp("forge"), request.param) as room:
        yield room


class TestTurns(Turns):
    pass


class TestBorrowing(Borrowing):
    pass


class TestImages(contract_model.Images):
    pass


class TestText(contract_model.Text):
    pass


class TestPrediction(contract_model.Prediction):
    pass


class TestLayers(contract_model.Layers):
    pass


class TestWeights(contract_model.Weights):
    pass


class TestLoras(contract_loras.Loras):
    pass


class TestDrawingWhileBorrowed(contract_loras.DrawingWhileBorrowed):
    pass
