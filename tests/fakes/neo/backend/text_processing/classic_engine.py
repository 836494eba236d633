from backend.args import dynamic_args
from modules.shared import cmd_opts, opts

from tests.fakes.text_engine import TextEngine


def take_notes():
    taken = dict(dynamic_args.last_extra_generation_params)
    dynamic_args.last_extra_generation_params.clear()
    return taken


class ClassicTextProcessingEngine(TextEngine):
    def options(self):
        return opts

    def embeddings_dir(self):
        return cmd_opts.embeddings_dir

    def note(self, name, value):
        dynamic_args.last_extra_generation_params[name] = value
