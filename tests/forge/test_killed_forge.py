"""Forge itself, killed while it trains, started again and told over REST to go on."""

from tests.killed_webui import Killed
from tests.real_webui import FORGE

pytestmark = FORGE.marks


class TestKilled(Killed):
    installation = FORGE
