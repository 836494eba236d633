"""The text beside a picture, and the shuffled versions of it that a run draws from."""

from __future__ import annotations

import codecs
import random
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from lib_trainer.config.recipe import DatasetConfig
from lib_trainer.errors import UserError
from lib_trainer.utils.limited_read import read_at_most

MAX_CAPTION_BYTES = 2**16
_UNICODE = ("utf_8", "utf_16_le", "utf_16_be", "utf_32_le", "utf_32_be")


def caption_endings(config: DatasetConfig) -> tuple[str, ...]:
    """Endings of caption files in lower case, the first that exists wins."""
    own = config.caption_extension.strip().lower()
    own = own if own.startswith(".") or not own else f".{own}"
    # kohya's tools default to .caption, taggers to .txt.
    return tuple(dict.fromkeys(ending for ending in (own, ".txt", ".caption") if ending))


@dataclass(frozen=True)
class CaptionFile:
    """A caption file as it stands on the disk.

    Attributes:
        data: its bytes; b"" where they cannot be read or are too many.
        text: what they say, as it stands there.
        problem: why there is no text, as a sentence without its full stop; "" where there is.
    """

    data: bytes = b""
    text: str = ""
    problem: str = ""


def read_caption_file(path: Path) -> CaptionFile:
    """A caption file, see `decode_text` for its encodings. Raises FileNotFoundError alone."""
    try:
        data = read_at_most(path, MAX_CAPTION_BYTES)
    except FileNotFoundError:
        raise
    except OSError as error:
        return CaptionFile(problem=f"the caption cannot be read: {error.strerror or error}")
    if data is None:
        return CaptionFile(problem=f"the caption is longer than {MAX_CAPTION_BYTES // 1024} KiB")
    try:
        return CaptionFile(data, decode_text(data))
    except ValueError as error:
        return CaptionFile(data, problem=f"the caption is not Unicode text{error}")


def read_captions(path: Path) -> tuple[str, ...]:
    """The captions in a text file, one a line; () for an empty file.

    Raises:
        UserError: the file cannot be read, is not such text or too long for a caption.
    """
    try:
        found = read_caption_file(path)
    except FileNotFoundError as error:
        raise UserError(f"the caption cannot be read: {error.strerror}") from error
    if found.problem:
        raise UserError(found.problem, "Save it as UTF-8 text.")
    return tuple(line for line in map(_clean, re.split(r"\r\n|\r|\n", found.text)) if line)


def decode_text(data: bytes) -> str:
    """Text in UTF-8, UTF-16 or UTF-32, with or without a byte order mark.

    Raises:
        ValueError: it is in another encoding; the message is " (perhaps NAME)", or "" where none fits.
    """
    # The mark of UTF-16 is the beginning of that of UTF-32.
    marks = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32"}
    marks |= {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
    encoding = next((name for mark, name in marks.items() if data.startswith(mark)), "utf-8-sig")
    # Zero bytes are half of UTF-16's in Western text, and the spaces and commas of any other.
    if encoding == "utf-8-sig" and data.count(0) * 8 >= len(data) > 0:
        encoding = _detected(data, _UNICODE)
    try:
        return data.decode(encoding or "ascii")
    except UnicodeDecodeError as error:
        # A caption is too short to tell cp1252 from cp1250: a guess would train wrong letters.
        name = _detected(data, ())
        raise ValueError(f" (perhaps {name})" if name else "") from error


def caption_of(lines: tuple[str, ...], config: DatasetConfig) -> tuple[str, ...]:
    """The captions that a run draws among, of the lines of one file: the first, each, or all as one."""
    if config.caption_lines == "random":
        return lines
    if config.caption_lines == "all":
        return (", ".join(line.rstrip(", ") for line in lines),) if lines else ()
    return lines[:1]


def put_first(word: str, caption: str) -> str:
    """The caption with the trigger word as its first tag."""
    tags = [tag.strip() for tag in caption.split(",")]
    others = [tag for tag in tags if tag and tag.lower() != word.lower()]
    return ", ".join([word, *others])


def expand(caption: str, word: str, folder_words: str) -> str:
    """With the trigger word for `[trigger]`, as in ai-toolkit, and the words of the folder's name for `[folder]`."""
    return caption.replace("[trigger]", word).replace("[folder]", folder_words)


def has_word(word: str, caption: str) -> bool:
    """Whether the caption holds the word by itself, in any letter case: not `jeff` in `jeffrey`."""
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", caption, re.IGNORECASE) is not None


def _clean(line: str) -> str:
    # Control characters break prompts and the adapter's metadata; unpaired surrogates cannot be written at all.
    return " ".join("".join(" " if unicodedata.category(char) in ("Cc", "Cs") else char for char in line).split())


def _detected(data: bytes, among: tuple[str, ...]) -> str:
    """The encoding that fits best, "" where none does."""
    # Imported late, because hardly any folder needs it. requests may have come with chardet instead.
    try:
        from charset_normalizer import from_bytes
    except ImportError:
        return ""

    best = from_bytes(data, cp_isolation=list(among) or None).best()
    return best.encoding if best else ""


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
