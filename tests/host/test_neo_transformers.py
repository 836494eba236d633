"""The contract for diffusion transformers, on the fake Forge Neo."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.neo_room import TRANSFORMERS, NeoRoom, fake_neo
from tests.fakes.room import WebuiRoom
from tests.host import contract_transformer
from tests.host.contract_transformer import pictures  # noqa: F401 - a fixture


@pytest.fixture(scope="module", params=["flux", *TRANSFORMERS])
def forge(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NeoRoom]:
    with fake_neo(tmp_path_factory.mktemp("neo"), f"{request.param}.safetensors") as found:
        yield found


class TestTransformers(contract_transformer.Transformers):
    steps = 12

    # Both adapters learn on the fake Forge's Flux, and on every family in the real program.
    @pytest.mark.parametrize("algo", ["lokr"])
    def test_a_run_learns_and_gives_everything_back(self, room: WebuiRoom, pictures: Path, algo: str) -> None:  # noqa: F811
        super().test_a_run_learns_and_gives_everything_back(room, pictures, algo)
