from tests.fakes.textual_inversion import Embedding, EmbeddingDatabase  # noqa: F401
