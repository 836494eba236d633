"""The contract of pivotal tuning on the fake WebUIs, with one and with two text encoders."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.a1111_room import fake_a1111
from tests.fakes.forge_room import fake_forge
from tests.fakes.neo_room import fake_neo
from tests.fakes.reforge_room import fake_reforge
from tests.fakes.room import WebuiRoom
from tests.host.contract_embeddings import EmbeddingRuns, Embeddings
from tests.host.contract_runs import pictures  # noqa: F401 - a fixture

FAKES = {"forge": fake_forge, "neo": fake_neo, "reforge": fake_reforge, "a1111": fake_a1111}
FAMILIES = ("sd1", "sdxl")


# Whole runs take long: one where an embedding lies in a folder, one where it lies in the LoRA.
WITH_RUNS = ("forge-sd1", "a1111-sdxl")


@pytest.fixture(scope="module", params=[f"{host}-{family}" for host in FAKES for family in FAMILIES])
def room(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebuiRoom]:
    host, _, family = request.param.partition("-")
    with FAKES[host](tmp_path_factory.mktemp(host), f"{family}.safetensors") as room:
        yield room


class TestEmbeddings(Embeddings):
    pass


@pytest.mark.parametrize("room", WITH_RUNS, indirect=True)
class TestEmbeddingRuns(EmbeddingRuns):
    pass
