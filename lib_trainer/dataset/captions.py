"""The text beside a picture, and the shuffled versions of it that a run draws from."""

from __future__ import annotations

import codecs
import random
import unicodedata
from pathlib import Path

from lib_trainer.config.recipe import DatasetConfig
from lib_trainer.errors import UserError

MAX_CAPTION_BYTES = 2**16


def caption_endings(config: DatasetConfig) -> tuple[str, ...]:
    """Endings of caption files in lower case, the first that exists wins."""
    own = config.caption_extension.strip().lower()
    own = own if own.startswith(".") or not own else f".{own}"
    # kohya's tools default to .caption, taggers to .txt.
    return tuple(dict.fromkeys(ending for ending in (own, ".txt", ".caption") if ending))


def read_caption(path: Path) -> str:
    """The caption in a text file, its lines joined by spaces; "" for an empty file.

    UTF-8 with or without a byte order mark, and UTF-16 with one (Windows' Notepad writes both).

    Raises:
        UserError: the file cannot be read, is not such text or too long for a caption.
    """
    hint = "Save it as UTF-8 text."
    try:
        with path.open("rb") as stream:
            # One byte more than allowed tells a long file without reading all of it.
            data = stream.read(MAX_CAPTION_BYTES + 1)
    except OSError as error:
        raise UserError(f"the caption cannot be read: {error.strerror or error}", hint) from error
    if len(data) > MAX_CAPTION_BYTES:
        raise UserError(f"the caption is longer than {MAX_CAPTION_BYTES // 1024} KiB", hint)
    encoding = "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise UserError("the caption is not UTF-8 text", hint) from error
    # Control characters break prompts and the adapter's metadata; unpaired surrogates cannot be written at all.
    return " ".join("".join(" " if unicodedata.category(char) in ("Cc", "Cs") else char for char in text).split())


def caption_variants(caption: str, config: DatasetConfig, rng: random.Random) -> tuple[str, ...]:
    """The versions of a caption that a run draws from, each once: itself, or up to `caption_variants` shuffles.

    As in kohya's sd-scripts: split at commas, the first `keep_tokens` parts stay, the others are shuffled.
    """
    if not config.shuffle_caption or not caption:
        return (caption,)
    parts = [part.strip() for part in caption.split(",")]
    kept, loose = parts[: config.keep_tokens], parts[config.keep_tokens :]
    # Duplicates are dropped: a short caption has few orders, and each would be encoded again.
    shuffled = (", ".join(kept + rng.sample(loose, len(loose))) for _ in range(config.caption_variants))
    return tuple(dict.fromkeys(shuffled))
