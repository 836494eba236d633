"""Pivotal tuning: an embedding that is trained beside the adapter. The names are those of sd-scripts."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lib_trainer.config.fields import quoted, setting
from lib_trainer.config.groups import LEARNS, LENGTH

# A dot ends the name in a file; brackets and the rest mean something in prompts, or in names of files.
WORD_PATTERN = re.compile(r"[^\s.,:;<>()\[\]{}|/\\?*\"'#]+( [^\s.,:;<>()\[\]{}|/\\?*\"'#]+)*")
_UNETS = ("sd1", "sd2", "sdxl")


@dataclass(frozen=True)
class EmbeddingConfig:
    """An embedding for a word of the captions; off by default."""

    num_vectors_per_token: int = setting(
        0, "Embedding vectors", "Pivotal tuning: an embedding of so many vectors learns the trigger word beside the"
        " adapter, and lies in its file; 1 to 4 are usual, 0 is off.",
        group=LEARNS, unit="vectors", low=0, high=75, families=_UNETS,
    )  # fmt: skip
    token_string: str = setting(
        "", "Embedding word", "The word of captions and prompts that the embedding stands for; empty takes the trigger"
        " word.",
        group=LEARNS, families=_UNETS,
    )  # fmt: skip
    init_word: str = setting(
        "", "Embedding init word", "The vectors begin as those of this text, like person; empty takes the word's own.",
        group=LEARNS, families=_UNETS,
    )  # fmt: skip
    embedding_lr: float = setting(
        1e-3, "Embedding learning rate", "Of the embedding alone; with Prodigy 1.",
        group=LENGTH, low=0.0, high=10.0, families=_UNETS,
    )  # fmt: skip

    def prompt_word(self, trigger_word: str) -> str:
        """What calls the concept in a prompt: the embedding's own word where it has one."""
        return self.token_string if self.num_vectors_per_token and self.token_string else trigger_word

    def word_problem(self, word: str) -> str:
        """Why an embedding cannot stand for this word, as the end of a sentence; "" where it can."""
        if not self.num_vectors_per_token or WORD_PATTERN.fullmatch(word):
            return ""
        if not word:
            return "name the word of the captions that the embedding stands for"
        return f"{quoted(word)} cannot be an embedding's word: leave out dots, commas, brackets and quotes"
