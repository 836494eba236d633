"""The header of a safetensors file: eight bytes say how long the JSON is that follows; then come the tensors.

Read without torch and without the tensors (https://huggingface.co/docs/safetensors, "Format").
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_LENGTH_BYTES = 8
_METADATA = "__metadata__"
# The limit of the safetensors library: a longer header is an attack or another kind of file.
_MAX_BYTES = 100_000_000
_NOT_ONE = "it does not begin with a safetensors header"


class HeaderError(ValueError):
    """The bytes are not those of a complete safetensors file; the message says why."""


@dataclass(frozen=True)
class Header:
    """What a safetensors file says about itself.

    Attributes:
        metadata: the file's own texts.
        layout: tensor name -> `dtype`, `shape` and `data_offsets`, as the file has them.
        size_bytes: of the header; the tensors begin there.
    """

    metadata: dict[str, str]
    layout: dict[str, dict[str, Any]]
    size_bytes: int

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(entry["shape"]) for name, entry in self.layout.items()}


def read_header(path: Path) -> Header:
    """The header of a file.

    Raises:
        OSError: the file cannot be read.
        HeaderError: it is another kind of file, or its end is missing.
    """
    with path.open("rb") as file:
        length = _length(file.read(_LENGTH_BYTES))
        return _parse(file.read(length), length, path.stat().st_size)


def header_of(content: bytes) -> Header:
    """The header of a file's content. Raises HeaderError."""
    length = _length(content[:_LENGTH_BYTES])
    return _parse(content[_LENGTH_BYTES : _LENGTH_BYTES + length], length, len(content))


def with_metadata(content: bytes, metadata: dict[str, str]) -> bytes:
    """The same file with this metadata, sorted: the library's order differs from process to process."""
    header = header_of(content)
    entries = {_METADATA: dict(sorted(metadata.items())), **header.layout}
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    # The format wants tensors to start at a multiple of eight.
    text += b" " * (-len(text) % _LENGTH_BYTES)
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text + content[header.size_bytes :]


def _length(first_bytes: bytes) -> int:
    length = int.from_bytes(first_bytes, "little")
    if len(first_bytes) < _LENGTH_BYTES or length > _MAX_BYTES:
        raise HeaderError(_NOT_ONE)
    return length


def _parse(text: bytes, length: int, file_bytes: int) -> Header:
    if len(text) < length:
        raise HeaderError("its end is missing")
    try:
        layout = json.loads(text)
        texts = layout.pop(_METADATA, None) or {}
        metadata = {key: value for key, value in texts.items() if isinstance(value, str)}
        sides = [side for entry in layout.values() for side in entry["shape"]]
        last_byte = max((entry["data_offsets"][1] for entry in layout.values()), default=0)
        if any(type(number) is not int for number in (*sides, last_byte)):
            raise TypeError("a size that is not an integer")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise HeaderError(_NOT_ONE) from error
    # A download that broke off has a complete header and only some of its tensors.
    if _LENGTH_BYTES + length + last_byte > file_bytes:
        raise HeaderError("its end is missing")
    return Header(metadata, layout, _LENGTH_BYTES + length)
