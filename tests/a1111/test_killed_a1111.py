"""A1111 itself, killed while it trains, started again and told over REST to go on."""

from tests.killed_webui import Killed
from tests.real_webui import A1111

pytestmark = A1111.marks


class TestKilled(Killed):
    installation = A1111
