from modules.shared import opts

from tests.fakes.tiny_t5 import LongTextEngine


class GemmaTextProcessingEngine(LongTextEngine):
    """Puts a sentence in front of a prompt, another in front of a negative one."""

    def options(self):
        return opts

    def __call__(self, texts):
        from modules.shared import opts as current

        # Asked each time, whatever the module's own settings are.
        sentence = current.neta_template_negative if texts.is_negative_prompt else current.neta_template_positive
        return super().__call__([f"{sentence}\n{text}" for text in texts])
