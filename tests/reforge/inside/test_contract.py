"""The contract, on the real reForge."""

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
