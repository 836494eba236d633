"""Forge Neo itself, killed while it trains, started again and told over REST to go on."""

from tests.killed_webui import Killed
from tests.real_webui import NEO

pytestmark = NEO.marks


class TestKilled(Killed):
    installation = NEO
