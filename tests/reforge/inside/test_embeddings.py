"""The contract of pivotal tuning, on the real reForge."""

from tests.host.contract_embeddings import EmbeddingRuns, Embeddings
from tests.host.contract_runs import pictures  # noqa: F401 - a fixture


class TestEmbeddings(Embeddings):
    pass


class TestEmbeddingRuns(EmbeddingRuns):
    pass
