"""A real step on Forge's own UNet takes what was predicted for it; a file says what will be loaded."""

from tests.host.contract_memory import Memory, SelectedFiles
from tests.host.contract_runs import pictures  # noqa: F401 - a fixture


class TestMemory(Memory):
    pass


class TestSelectedFiles(SelectedFiles):
    pass
