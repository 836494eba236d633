"""The contract for diffusion transformers, on the fake Forge Neo."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.neo_room import TRANSFORMERS, NeoRoom, fake_neo
from tests.host import contract_transformer
from tests.host.contract_transformer import pictures  # noqa: F401 - a fixture


@pytest.fixture(scope="module", params=["flux", *TRANSFORMERS])
def forge(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NeoRoom]:
    with fake_neo(tmp_path_factory.mktemp("neo"), f"{request.param}.safetensors") as found:
        yield found


class TestTransformers(contract_transformer.Transformers):
    pass
