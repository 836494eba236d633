"""Files of unknown origin, read up to a limit."""

from __future__ import annotations

from pathlib import Path


def read_at_most(path: Path, most_bytes: int) -> bytes | None:
    """The file's bytes; None where it has more than `most_bytes`. Raises OSError."""
    with path.open("rb") as stream:
        # One byte more tells a large file without reading all of it, whatever its size is said to be.
        data = stream.read(most_bytes + 1)
    return data if len(data) <= most_bytes else None
