"""Embeddings of the fake WebUIs: words that stand for vectors, read from a folder, used up by the next call."""

import os

import torch
from safetensors.torch import load_file


class Embedding:
    def __init__(self, vec, name, step=None):
        self.vec, self.name, self.step = vec, name, step
        self.shape, self.vectors, self.shorthash = None, 0, None


class EmbeddingDatabase:
    """`split` makes token numbers of a text; `expected_shape` is the width that fits, -1 for any."""

    def __init__(self, split=None, expected_shape=-1):
        self.split, self.expected_shape, self.fixes = split, expected_shape, None
        self.ids_lookup, self.word_embeddings, self.embedding_dirs = {}, {}, {}

    def add_embedding_dir(self, path):
        self.embedding_dirs[path] = None

    def register(self, embedding, ids, name):
        found = [known for known in self.ids_lookup.pop(ids[0], []) if known[1].name != name]
        self.word_embeddings.pop(name, None)
        if embedding is not None:
            found.append((ids, embedding))
            self.word_embeddings[name] = embedding
        if found:
            self.ids_lookup[ids[0]] = sorted(found, key=lambda known: -len(known[0]))

    def register_embedding_by_name(self, embedding, name):
        self.register(embedding, self.split(name), name)

    def load_textual_inversion_embeddings(self):
        self.ids_lookup.clear()
        self.word_embeddings.clear()
        for folder in self.embedding_dirs:
            for file in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
                name, ending = os.path.splitext(file)
                if ending == ".safetensors":
                    embedding = from_data(load_file(os.path.join(folder, file)), name)
                    if self.expected_shape in (-1, embedding.shape):
                        self.register_embedding_by_name(embedding, name)

    def find_embedding_at_position(self, tokens, offset):
        for ids, embedding in self.ids_lookup.get(tokens[offset], ()):
            if tokens[offset : offset + len(ids)] == ids:
                return embedding, len(ids)
        return None, None

    def pieces(self, tokens):
        """[(tokens, embedding)]: each token by itself, zeros for an embedding."""
        at, found = 0, []
        while at < len(tokens):
            embedding, length = self.find_embedding_at_position(tokens, at)
            found.append(([tokens[at]], None) if embedding is None else ([0] * embedding.vectors, embedding))
            at += length or 1
        return found


def from_data(data, name):
    """One tensor, `string_to_param`, or one for each encoder of SDXL."""
    both = "clip_l" in data and "clip_g" in data
    vec = dict(data) if both else next(iter(data.get("string_to_param", data).values()))
    embedding = Embedding(vec, name)
    parts = list(vec.values()) if both else [vec]
    embedding.vectors, embedding.shape = len(parts[0]), sum(part.shape[-1] for part in parts)
    return embedding


def in_place(rows, batch_fixes, key):
    """Rows (B, 77, D) of tokens with the vectors of embeddings put in: (place, embedding) for each row."""
    found = []
    for fixes, row in zip(batch_fixes, rows, strict=True):
        for place, embedding in fixes:
            vec = embedding.vec[key] if isinstance(embedding.vec, dict) else embedding.vec
            # Behind the mark that begins the row.
            row = torch.cat([row[: place + 1], vec.to(row), row[place + 1 + len(vec) :]])
        found.append(row)
    return torch.stack(found)


class TokenEmbedding(torch.nn.Module):
    """Around a text encoder's own; `holder` has the fixes of the next call."""

    def __init__(self, wrapped, holder, key="clip_l"):
        super().__init__()
        self.wrapped, self.holder, self.key = wrapped, [holder], key

    @property
    def weight(self):
        return self.wrapped.weight

    def forward(self, tokens):
        fixes, self.holder[0].fixes = self.holder[0].fixes, None
        rows = self.wrapped(tokens)
        return in_place(rows, fixes, self.key) if fixes and any(fixes) else rows


def portions(pieces, length):
    """[(tokens, fixes)] of at most so many tokens; an embedding lies in one of them. Pieces carry a weight."""
    found = [([], [])]
    for tokens, embedding, weight in pieces:
        if len(found[-1][0]) + len(tokens) > length:
            found.append(([], []))
        if embedding is not None:
            found[-1][1].append((len(found[-1][0]), embedding))
        found[-1][0].extend((token, weight) for token in tokens)
    return found
