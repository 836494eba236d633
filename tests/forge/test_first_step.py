"""How soon a run takes its first step in Forge itself."""

from tests.first_step import FirstStep
from tests.real_webui import FORGE

pytestmark = FORGE.marks


class TestFirstStep(FirstStep):
    installation = FORGE
