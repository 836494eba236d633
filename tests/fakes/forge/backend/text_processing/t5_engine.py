from tests.fakes.tiny_t5 import LongTextEngine

from modules.shared import opts


class T5TextProcessingEngine(LongTextEngine):
    least = 16

    def options(self):
        return opts
