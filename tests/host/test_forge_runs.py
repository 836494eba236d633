"""Whole runs, on the fake Forge; `tests/forge` does them on the real one."""

from tests.host.contract_runs import Runs, pictures  # noqa: F401 - a fixture


class TestRuns(Runs):
    pass
