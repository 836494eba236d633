"""The contract, on the real Forge Neo."""

from tests.host import contract_forge, contract_neo
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


class TestNeoLoras(contract_neo.NeoLoras):
    pass


class TestNeoText(contract_neo.NeoText):
    pass
