"""The contract on the fake Forge; `tests/forge` runs the same on the real one."""

from tests.host import contract_forge, contract_loras, contract_model
from tests.host.contract_borrowing import Borrowing
from tests.host.contract_turns import Turns


class TestTurns(Turns):
    pass


class TestBorrowing(Borrowing):
    pass


class TestImages(contract_model.Images):
    pass


class TestText(contract_model.Text):
    pass


class TestPrediction(contract_model.Prediction):
    pass


class TestLayers(contract_model.Layers):
    pass


class TestWeights(contract_model.Weights):
    pass


class TestLoras(contract_loras.Loras):
    pass


class TestDrawingWhileBorrowed(contract_loras.DrawingWhileBorrowed):
    pass


class TestForgeMemory(contract_forge.ForgeMemory):
    pass


class TestForgePrediction(contract_forge.ForgePrediction):
    pass


class TestForgeLoras(contract_forge.ForgeLoras):
    pass
