from modules.shared import opts

from tests.fakes.tiny_t5 import LongTextEngine


class Qwen3TextProcessingEngine(LongTextEngine):
    def options(self):
        return opts
