"""The contract, on the real reForge."""

from tests.host.contract import (  # noqa: F401 - the tests
    TestBorrowing,
    TestDrawingWhileBorrowed,
    TestImages,
    TestLayers,
    TestLoras,
    TestPrediction,
    TestText,
    TestTurns,
    TestWeights,
)
