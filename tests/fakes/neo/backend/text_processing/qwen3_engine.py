from modules.shared import opts

from tests.fakes.tiny_t5 import LongTextEngine


class Qwen3TextProcessingEngine(LongTextEngine):
    def options(self):
        return opts


class KleinTextProcessingEngine(Qwen3TextProcessingEngine):
    """Fills up to a fixed length, and answers with a list all the same."""

    least = 24

    def __call__(self, texts):
        return list(super().__call__(texts))
