"""A run that is watched, on the real Forge Neo."""

from tests.host.contract_forge import ForgeWatching
from tests.host.contract_runs import pictures  # noqa: F401 - a fixture
from tests.host.contract_watching import Watching, jobs  # noqa: F401 - a fixture


class TestWatching(Watching):
    pass


class TestForgeWatching(ForgeWatching):
    pass
