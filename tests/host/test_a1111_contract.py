"""The contract on the fake A1111; `tests/a1111` runs the same on the real one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.a1111_room import A1111Room, fake_a1111
from tests.host import contract_loras, contract_model
from tests.host.contract_borrowing import Borrowing
from tests.host.contract_turns import Turns


@pytest.fixture(scope="module", params=["sd1.safetensors", "sdxl.safetensors"])
def room(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[A1111Room]:
    with fake_a1111(tmp_path_factory.mktemp("a1111"), request.param) as room:
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
