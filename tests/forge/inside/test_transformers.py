"""The contract for diffusion transformers, on the real Forge."""

from tests.host import contract_memory, contract_transformer
from tests.host.contract_transformer import pictures  # noqa: F401 - a fixture


class TestTransformers(contract_transformer.Transformers):
    pass


class TestTransformersFile(contract_memory.SelectedFiles):
    pass
