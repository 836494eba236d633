"""Pictures of a grid on disk: a grid may have hundreds, and a WebUI's memory belongs to its models."""

from __future__ import annotations

import tempfile
from pathlib import Path

from PIL import Image

# Small enough and quick to write; the pictures are read again for thumbnails and the grid only.
_COMPRESSION = 1


class PictureFolder:
    """A folder in the system's place for temporary files, removed with the last picture that it holds."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="train-lora-grid-", ignore_cleanup_errors=True)
        self._count = 0

    def keep(self, picture: Image.Image) -> PictureFile:
        """Writes a picture, pixel for pixel. Raises OSError where the disk takes nothing."""
        self._count += 1
        path = Path(self._folder.name, f"{self._count}.png")
        picture.save(path, "PNG", compress_level=_COMPRESSION)
        return PictureFile(path, picture.size, self)


class PictureFile:
    """One picture on disk. Its folder lives as long as it does."""

    def __init__(self, path: Path, size: tuple[int, int], folder: PictureFolder) -> None:
        self.path, self.size, self._folder = path, size, folder

    def open(self) -> Image.Image:
        """The picture, read anew each time."""
        with Image.open(self.path) as picture:
            picture.load()
            return picture
