from modules.textual_inversion.textual_inversion import EmbeddingDatabase


class Hijack:
    fixes = None

    def __init__(self):
        self.embedding_db = EmbeddingDatabase()
        self.clear_comments()

    def clear_comments(self):
        self.comments, self.extra_generation_params = [], {}


model_hijack = Hijack()
