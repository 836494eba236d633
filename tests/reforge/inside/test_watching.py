"""A run that is watched, on the real reForge."""

from tests.host.contract_runs import pictures  # noqa: F401 - a fixture
from tests.host.contract_watching import Watching, jobs  # noqa: F401 - a fixture


class TestWatching(Watching):
    pass
