"""The contract that every WebUI's host is held to, real or fake: a test module imports these classes.

It needs a fixture `room`, the WebUI.
"""

from tests.host import contract_loras, contract_model
from tests.host.contract_lock import GenerationLock
from tests.host.contract_open_model import OpenModel


class TestGenerationLock(GenerationLock):
    pass


class TestOpenModel(OpenModel):
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


class TestDrawingWhileTraining(contract_loras.DrawingWhileTraining):
    pass
