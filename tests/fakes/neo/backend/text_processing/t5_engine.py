from modules.shared import opts

from tests.fakes.tiny_t5 import LongTextEngine


class T5TextProcessingEngine(LongTextEngine):
    least = 16

    def options(self):
        return opts


class ShortT5TextProcessingEngine(T5TextProcessingEngine):
    """Chroma's: a text is as long as it is."""

    least = 1
