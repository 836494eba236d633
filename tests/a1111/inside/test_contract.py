"""The contract, on the real A1111."""

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
