from modules.shared import opts

from tests.fakes.tiny_t5 import LongTextEngine


class GemmaTextProcessingEngine(LongTextEngine):
    """Puts a sentence in front of a prompt, another in front of a negative one."""

    def options(self):
        return opts

    def __call__(self, texts):
        sentence = "Draw it badly. " if texts.is_negative_prompt else "Draw it well. "
        return super().__call__([sentence + text for text in texts])
