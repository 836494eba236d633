from modules.shared import opts

from tests.fakes.tiny_t5 import LongTextEngine


class T5TextProcessingEngine(LongTextEngine):
    least = 16

    def options(self):
        return opts
