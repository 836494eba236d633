"""Whole runs, on the real Forge Neo."""

from tests.host.contract_runs import Runs, pictures  # noqa: F401 - a fixture


class TestRuns(Runs):
    pass
