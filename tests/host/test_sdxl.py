"""What SDXL changes in the contract, on the fakes: two text encoders, sizes, names, deeper transformers.

How a WebUI looks for LoRA files does not depend on the family: that is left out.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.a1111_room import fake_a1111
from tests.fakes.forge_room import fake_forge
from tests.fakes.reforge_room import fake_reforge
from tests.fakes.room import WebuiRoom
from tests.host import contract
from tests.host.contract import (  # noqa: F401 - the tests
    TestLayers,
    TestPrediction,
    TestText,
)
from tests.host.contract_loras import FewerKinds


@pytest.fixture(scope="module", params=[fake_forge, fake_reforge, fake_a1111], ids=lambda fake: fake.__name__)
def room(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebuiRoom]:
    with request.param(tmp_path_factory.mktemp("webui"), "sdxl.safetensors") as room:
        yield room


class TestOpenModel(contract.TestOpenModel):
    # Where it fails, SDXL's second encoder and its sizes are there.
    @pytest.mark.parametrize("phase", ["text", "step"])
    def test_the_same_picture_after_a_failure(self, room: WebuiRoom, phase: str) -> None:
        super().test_the_same_picture_after_a_failure(room, phase)


class TestLoras(FewerKinds):
    pass
