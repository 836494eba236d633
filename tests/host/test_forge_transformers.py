"""The contract for diffusion transformers, on the fake Forge."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.forge_room import ForgeRoom, fake_forge
from tests.host import contract_transformer
from tests.host.contract_transformer import pictures  # noqa: F401 - a fixture


@pytest.fixture(scope="module", params=["flux.safetensors"])
def forge(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForgeRoom]:
    with fake_forge(tmp_path_factory.mktemp("forge"), request.param) as found:
        yield found


class TestTransformers(contract_transformer.Transformers):
    steps = 12
