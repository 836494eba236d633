"""An embedding that is trained beside an adapter: its vectors, and its names in the adapter's file.

Textual inversion: Gal et al., "An Image is Worth One Word" (2022). A1111 and ComfyUI read it under these names from the
file, and OneTrainer writes it so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from lib_trainer.config.embedding import WORD_PATTERN

if TYPE_CHECKING:
    from lib_trainer.models.base import Vectors

# The text encoders of SDXL; others have one, whose vectors have another name in files.
CLIP_L, CLIP_G = "clip_l", "clip_g"
_PREFIX, _SINGLE = "bundle_emb", "string_to_param.*"
_MOST_VECTORS = 75


class TrainedEmbedding(nn.Module):
    """Vectors that stand for a word in captions and prompts.

    Attributes:
        vectors: encoder -> (n, width) float32.
    """

    def __init__(self, word: str, vectors: Vectors) -> None:
        super().__init__()
        self.word = word
        self.vectors = nn.ParameterDict({name: nn.Parameter(value.float()) for name, value in vectors.items()})


def spread(rows: Vectors, count: int) -> dict[str, Tensor]:
    """`count` vectors an encoder from those of a text's tokens (tokens, width), each repeated about equally often."""
    places = {name: [at * len(tokens) // count for at in range(count)] for name, tokens in rows.items()}
    return {name: tokens[places[name]].clone() for name, tokens in rows.items()}


def bundled(embeddings: Mapping[str, Vectors]) -> dict[str, Tensor]:
    """Word -> its vectors, as tensors of an adapter's file. Float32: they are few, and small differences tell."""
    tensors = {}
    for word, vectors in embeddings.items():
        alone = len(vectors) == 1
        for encoder, value in vectors.items():
            key = f"{_PREFIX}.{word}.{_SINGLE if alone else encoder}"
            tensors[key] = value.detach().to("cpu", torch.float32).contiguous()
    return tensors


def is_bundled(key: str) -> bool:
    """Whether a tensor of this name belongs to an embedding."""
    return key.startswith(f"{_PREFIX}.")


def bundled_embeddings(tensors: Mapping[str, Tensor]) -> tuple[dict[str, dict[str, Tensor]], list[str]]:
    """(word -> its vectors in float32, keys of what else is bundled) of a file's tensors."""
    found: dict[str, dict[str, Tensor]] = {}
    unknown = []
    for key, value in tensors.items():
        if not is_bundled(key):
            continue
        word, _, part = key.partition(".")[2].partition(".")
        encoder = CLIP_L if part == _SINGLE else part
        # The word becomes a file's name: one with a path in it is nobody's to choose.
        fits = value.ndim == 2 and 0 < len(value) <= _MOST_VECTORS
        if WORD_PATTERN.fullmatch(word) and encoder in (CLIP_L, CLIP_G) and fits:
            found.setdefault(word, {})[encoder] = value.float()
        else:
            unknown.append(key)
    for word, vectors in list(found.items()):
        # One word is as long for each encoder.
        if len({len(value) for value in vectors.values()}) > 1:
            del found[word]
            unknown += [key for key in tensors if key.startswith(f"{_PREFIX}.{word}.")]
    return found, unknown
