"""Puts a word's vectors where the WebUI keeps the embeddings of its folder: captions are read as prompts are."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from lib_trainer.adapter.embedding import bundled_embeddings, is_bundled
from lib_trainer.utils.atomic_file import replace_with
from lib_trainer.utils.safetensors_header import HeaderError, read_header

if TYPE_CHECKING:
    from lib_trainer.models.base import Vectors

_log = logging.getLogger(__name__)
# In the metadata of an embedding's file: the LoRA that it belongs to.
_OURS = "train_lora"
# An embedding or None, and its word.
Register = Callable[[Any, str], object]


def known_to(kind: type, words: Mapping[str, Vectors]) -> dict[str, Any]:
    """Word -> an embedding of the WebUI's own class `kind`, which reads these very tensors at each use."""
    found = {}
    for word, vectors in words.items():
        by_encoder = {encoder: vectors[encoder] for encoder in vectors}
        first = next(iter(by_encoder.values()))
        found[word] = embedding = kind(first if len(by_encoder) == 1 else by_encoder, word)
        embedding.vectors, embedding.shape = len(first), sum(value.shape[1] for value in by_encoder.values())
    return found


@contextmanager
def registered(embeddings: Mapping[str, Any], databases: Sequence[tuple[Any, Register]]) -> Iterator[None]:
    """While entered, the WebUI's databases know these embeddings by their words, in place of any of those names."""
    before = [{word: database.word_embeddings.get(word) for word in embeddings} for database, _ in databases]
    try:
        for _, register in databases:
            for word, embedding in embeddings.items():
                register(embedding, word)
        yield
    finally:
        for (_, register), own in zip(databases, before, strict=True):
            for word in embeddings:
                register(None, word)
                if own[word] is not None:
                    register(own[word], word)


@contextmanager
def unprinted(code: Iterable[ModuleType]) -> Iterator[None]:
    """While entered, these modules print nothing: some name each embedding that a prompt has, at every call."""
    modules = list(code)
    for module in modules:
        module.print = lambda *_args, **_kwargs: None
    try:
        yield
    finally:
        for module in modules:
            del module.print


def other_embedding(folder: Path, word: str) -> Path | None:
    """A file in the folder of embeddings that this word means already, and that was not trained here."""
    for path in sorted(folder.rglob("*")) if folder.is_dir() else []:
        if path.is_file() and path.stem.lower() == word.lower() and not _is_ours(path):
            return path
    return None


def write_embeddings(lora: Path, folder: Path) -> list[Path]:
    """Writes each embedding that a LoRA file bundles into the folder, for WebUIs that do not look into LoRA files.

    A file there that was not trained here is left alone.
    """
    try:
        found, _ = bundled_embeddings(load_file(lora) if any(map(is_bundled, read_header(lora).shapes)) else {})
    except (OSError, HeaderError, SafetensorError):
        return []
    written = []
    for word, vectors in found.items():
        path = folder / f"{word}.safetensors"
        if path.exists() and not _is_ours(path):
            continue
        # The names in files of their own: those of SDXL, or any single one.
        content = dict(vectors) if len(vectors) > 1 else {"emb_params": next(iter(vectors.values()))}
        try:
            replace_with(path, partial(save_file, content, metadata={_OURS: lora.stem}))
        except (OSError, SafetensorError) as error:
            # The LoRA is written, and holds it too.
            _log.warning("The embedding %s cannot be written: %s", path, error)
        else:
            written.append(path)
    return written


def _is_ours(path: Path) -> bool:
    with suppress(OSError, HeaderError):
        return _OURS in read_header(path).metadata
    return False
