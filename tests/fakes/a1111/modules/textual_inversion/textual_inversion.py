"""A word is known by the tokens that the loaded model makes of it."""

import os

from tests.fakes import textual_inversion
from tests.fakes.textual_inversion import Embedding, from_data  # noqa: F401

from modules import shared


class EmbeddingDatabase(textual_inversion.EmbeddingDatabase):
    seen = None

    def register_embedding_by_name(self, embedding, model, name):
        self.register(embedding, model.cond_stage_model.tokenize([name])[0], name)

    def load_textual_inversion_embeddings(self, force_reload=False):
        """What does not lie in the folder is forgotten, once the folder has changed."""
        folder = shared.cmd_opts.embeddings_dir
        changed = os.path.getmtime(folder) if os.path.isdir(folder) else None
        if changed == self.seen and not force_reload:
            return
        self.seen, model = changed, shared.sd_model
        files = textual_inversion.EmbeddingDatabase(lambda name: model.cond_stage_model.tokenize([name])[0])
        files.add_embedding_dir(folder)
        files.load_textual_inversion_embeddings()
        self.ids_lookup, self.word_embeddings = files.ids_lookup, files.word_embeddings
