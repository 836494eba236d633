from tests.fakes.text_engine import TextEngine

from modules.shared import cmd_opts, opts

last_extra_generation_params = {}


def take_notes():
    taken = dict(last_extra_generation_params)
    last_extra_generation_params.clear()
    return taken


class ClassicTextProcessingEngine(TextEngine):
    def options(self):
        return opts

    def embeddings_dir(self):
        return cmd_opts.embeddings_dir

    def note(self, name, value):
        last_extra_generation_params[name] = value
