"""The contract of interrogators, in the real Forge."""

from __future__ import annotations

from tests.host.contract_interrogators import Interrogators, weights  # noqa: F401 - a fixture


class TestInterrogators(Interrogators):
    pass
