"""The contract that every WebUI's host is held to, real or fake: a test module imports these classes.

It needs a fixture `room`, the WebUI.
"""

from tests.host import contract_loras, contract_model
from tests.host.contract_borrowing import Borrowing
from tests.host.contract_lock import Turns


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
