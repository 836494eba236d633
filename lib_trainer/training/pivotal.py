"""Pivotal tuning: the embedding that a run trains beside its adapter, checked, begun and described.

Source: Roich et al., "Pivotal Tuning for Latent-based Editing of Real Images" (2021), as trainers of diffusion models
use the word: a textual inversion and a LoRA that learn at once.
"""

from __future__ import annotations

import re
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from lib_trainer.adapter.embedding import TrainedEmbedding, spread
from lib_trainer.config.recipe import Recipe
from lib_trainer.dataset.scan import Scan
from lib_trainer.errors import ConfigError, UserError
from lib_trainer.host.base import Host
from lib_trainer.models.base import HostModel
from lib_trainer.training.start import Start

if TYPE_CHECKING:
    from lib_trainer.models.base import Vectors


def trains_embedding(recipe: Recipe) -> bool:
    """Whether a run of this recipe trains an embedding."""
    return recipe.embedding.num_vectors_per_token > 0


def word_of(recipe: Recipe) -> str:
    """The word that its embedding stands for; "" without an embedding.

    Args:
        recipe: with the trigger word of its pictures.
    """
    return recipe.embedding.prompt_word(recipe.dataset.trigger_word) if trains_embedding(recipe) else ""


def check_word(recipe: Recipe, scan: Scan, start: Start, host: Host) -> None:
    """Raises ConfigError where the run could not train its embedding, or a person not draw with it.

    UserError, where a LoRA that it begins with bundles embeddings that do not fit.
    """
    start.check_embeddings(recipe.embedding, word_of(recipe))
    if not trains_embedding(recipe):
        return
    word = word_of(recipe)
    problem = recipe.embedding.word_problem(word) or host.word_problem(word)
    if not problem:
        named = re.compile(rf"(?<!\w){re.escape(word)}(?!\w)", re.IGNORECASE)
        if not any(named.search(caption) for sample in scan.samples for caption in sample.captions):
            problem = f"no caption holds the word {word!r}, so nothing would be learned for it"
    if problem:
        raise ConfigError({"token_string": problem})


def require_unet(recipe: Recipe, model: HostModel) -> None:
    """Raises ConfigError for a model whose captions no embedding can change."""
    if trains_embedding(recipe) and model.family.is_flow:
        text = f"{model.family.label} has no embeddings that a WebUI would read; SD 1.x, SD 2.x and SDXL do"
        raise ConfigError({"num_vectors_per_token": text})


def new_embedding(recipe: Recipe, model: HostModel, start: Start) -> TrainedEmbedding | None:
    """The embedding as it begins: with the vectors of its init word, or of the LoRA that is continued."""
    if not trains_embedding(recipe):
        return None
    word, config = word_of(recipe), recipe.embedding
    rows = model.word_vectors(config.init_word or word)
    kept = start.continued_vectors
    if kept and {name: value.shape[1] for name, value in kept.items()} != {n: v.shape[1] for n, v in rows.items()}:
        raise UserError("The embedding of the LoRA does not fit this checkpoint.", "It was trained for another family.")
    return TrainedEmbedding(word, kept or spread(rows, config.num_vectors_per_token))


def known_words(
    model: HostModel, start: Start, embedding: TrainedEmbedding | None = None
) -> AbstractContextManager[None]:
    """While entered, prompts know the words of the frozen LoRAs and of the embedding that is trained."""
    words: dict[str, Vectors] = dict(start.frozen_embeddings)
    if embedding:
        words[embedding.word] = embedding.vectors
    return model.embeddings(words) if words else nullcontext()


def describe_embedding(embedding: TrainedEmbedding) -> str:
    """The sentence of a run that trains it."""
    count = len(next(iter(embedding.vectors.values())))
    vectors = "one vector" if count == 1 else f"{count} vectors"
    return f"Training an embedding of {vectors} for the word {embedding.word}: captions are encoded in every step."
