"""A real step on reForge's own UNet takes what was predicted for it."""

from tests.host.contract_memory import Memory
from tests.host.contract_runs import pictures  # noqa: F401 - a fixture


class TestMemory(Memory):
    pass
