"""One folder that a page has open: its pictures with their captions, as JSON values."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib_trainer.config.recipe import DatasetConfig
from lib_trainer.dataset.captions import caption_endings
from lib_trainer.dataset.checks.faces import FaceFinder
from lib_trainer.dataset.editing.face_crop import crop_with_face
from lib_trainer.dataset.editing.sidecar import Caption, caption_file, read_sidecar
from lib_trainer.dataset.editing.tag_table import has_tag, tag_table
from lib_trainer.dataset.edits import Crop, PictureEdit, read_edits
from lib_trainer.dataset.images import shown_name
from lib_trainer.dataset.samples import Sample
from lib_trainer.dataset.scan import Scan
from lib_trainer.dataset.thumbnails import Thumbnails
from lib_trainer.errors import UserError
from lib_trainer.workbench.checking import Checking
from lib_trainer.workbench.chunks import chunk_starts

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_AT_ONCE = 200
_MOST_TAGS = 500


class OpenFolder:
    """The pictures of a scan, excluded ones too, by their place in the list.

    Args:
        read: gives the checks their small copies; by default `thumbnails` does.

    Attributes:
        images: the files, in the order of the list.
        checking: the checks, which run by themselves.
    """

    def __init__(
        self,
        scan: Scan,
        config: DatasetConfig,
        kind: str,
        thumbnails: Thumbnails,
        count_tokens: Callable[[str], int | None],
        read: Callable[[Path], Image] | None = None,
    ) -> None:
        samples = sorted([*scan.samples, *scan.excluded], key=lambda sample: str(sample.image))
        self.images = [sample.image for sample in samples]
        self.trigger_word = scan.trigger_word
        self._samples, self._thumbnails = samples, thumbnails
        self._count_tokens, self._config = count_tokens, config
        self.endings = caption_endings(config)
        self._captions: dict[int, tuple[tuple[str, int, int], Caption]] = {}
        numbers = {image: number for number, image in enumerate(self.images)}
        self.checking = Checking(scan, config, kind, read or thumbnails.read, numbers)

    def folders(self) -> list[Path]:
        """Those that hold the pictures."""
        return sorted({image.parent for image in self.images})

    def close(self) -> None:
        self.checking.stop()

    def image(self, number: Any) -> Path:
        """Raises UserError where the list has no such place."""
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < len(self.images):
            raise UserError("There is no such picture.", "Press Scan again.")
        return self.images[number]

    def thumbnail(self, number: int) -> bytes:
        """A JPEG. Raises UserError."""
        return self._thumbnails.jpeg(self.image(number))

    def sidecar(self, number: int) -> Path:
        return caption_file(self.image(number), self.endings)

    def caption(self, number: int) -> Caption:
        """As it stands on the disk now."""
        path = self.sidecar(number)
        try:
            about = path.lstat()
        except OSError:
            return read_sidecar(path)
        # Ten thousand files are read once, and then only looked at.
        state = path.suffix, about.st_size, about.st_mtime_ns
        known = self._captions.get(number)
        if known is None or known[0] != state:
            known = self._captions[number] = state, read_sidecar(path)
        return known[1]

    def edit(self, number: int) -> PictureEdit:
        image = self.image(number)
        return read_edits(image.parent).of(image.name)

    def page(self, start: int, count: int, tag: str = "", numbers: Iterable[int] | None = None) -> dict[str, Any]:
        """`pictures` from place `start` on among those with this tag, or among `numbers`; `total` of them."""
        chosen = self.chosen(tag, numbers)
        shown = chosen[max(0, start) : max(0, start) + min(count, MOST_AT_ONCE)]
        edits = {folder: read_edits(folder) for folder in {self.images[number].parent for number in shown}}
        images = [(number, self.images[number]) for number in shown]
        pictures = [self.describe(number, edits[image.parent].of(image.name)) for number, image in images]
        return {"pictures": pictures, "total": len(chosen), "trigger_word": self.trigger_word}

    def chosen(self, tag: str = "", numbers: Iterable[int] | None = None) -> list[int]:
        """The places of the pictures that a filter leaves."""
        among = range(len(self.images)) if numbers is None else [n for n in numbers if 0 <= n < len(self.images)]
        return [number for number in among if not tag or has_tag(self.caption(number).text, tag)]

    def face_crops(self, finder: FaceFinder) -> dict[int, Crop]:
        """Crops for those pictures of which the bucket would cut a face; a crop that a person has drawn stays."""
        crops = {}
        for number, image in enumerate(self.images):
            if self._samples[number].crop_px or self.edit(number).crop:
                continue
            # A picture that cannot be decoded is named by the checks.
            with suppress(UserError):
                faces = finder.boxes(self._thumbnails.read(image).convert("L"))
                width, height = _whole_size(self._samples[number])
                if faces and (crop := crop_with_face(width, height, faces[0], self._config)):
                    crops[number] = crop
        return crops

    def tags(self) -> list[dict[str, Any]]:
        """The table of tags of all pictures that are in the run."""
        edits = {folder: read_edits(folder) for folder in {image.parent for image in self.images}}
        used = [n for n, image in enumerate(self.images) if not edits[image.parent].of(image.name).excluded]
        return [asdict(row) for row in tag_table(self.caption(number).text for number in used)[:_MOST_TAGS]]

    def describe(self, number: int, edit: PictureEdit | None = None) -> dict[str, Any]:
        """One picture for the page."""
        image, caption = self.image(number), self.caption(number)
        edit = edit or self.edit(number)
        width, height = _whole_size(self._samples[number])
        return {
            "number": number, "name": shown_name(image), "folder": shown_name(image.parent), "caption": caption.text,
            "version": caption.version, "problem": caption.problem, "excluded": edit.excluded, "crop": edit.crop,
            "width_px": width, "height_px": height,
            **self._tokens(caption.text), "file": os.fspath(self.sidecar(number).suffix),
        }  # fmt: skip

    def _tokens(self, text: str) -> dict[str, Any]:
        """`tokens` of the longest line, None where no checkpoint is loaded, and the words that begin its `chunks`."""
        counted = {line: self._count_tokens(line) for line in text.splitlines() if line.strip()}
        known = {line: count for line, count in counted.items() if count is not None}
        longest = max(known, key=lambda line: known[line], default="")
        return {"tokens": known.get(longest), "chunks": chunk_starts(longest, self._count_tokens)}


def _whole_size(sample: Sample) -> tuple[int, int]:
    """Of the picture; where it is cropped the page learns it from the thumbnail."""
    return (0, 0) if sample.crop_px else (sample.width_px, sample.height_px)
