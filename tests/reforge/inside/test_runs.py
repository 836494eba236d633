"""Whole runs, on the real reForge."""

from tests.host.contract_runs import Runs, pictures  # noqa: F401 - a fixture


class TestRuns(Runs):
    pass
