"""The contract on the fake Forge; `tests/forge` runs the same on the real one."""

from tests.host import contract_forge
from tests.host.contract import (  # noqa: F401 - the tests
    TestDrawingWhileTraining,
    TestGenerationLock,
    TestImages,
    TestLayers,
    TestLoras,
    TestOpenModel,
    TestPrediction,
    TestText,
    TestWeights,
)


class TestForgeMemory(contract_forge.ForgeMemory):
    pass


class TestForgePrediction(contract_forge.ForgePrediction):
    pass


class TestForgeLoras(contract_forge.ForgeLoras):
    pass
