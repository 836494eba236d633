"""The report's pictures: one prompt as the last step draws it, and the best one at two strengths."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO

from PIL.Image import Image

from lib_trainer.events import Event, Notice, Progress, Sampled
from lib_trainer.preview.grid_image import label_grid
from lib_trainer.training.sampling import Sampling, failure_notice
from lib_trainer.utils.atomic_file import replace_file

_PICTURES = 3


@dataclass
class Comparison:
    """Draws the first sample prompt with the weights as they are when it is asked; without a folder nothing.

    Attributes:
        pictures: label -> picture, in the order drawn.
        png: the pictures side by side, once they are saved; b"" before.
    """

    sampling: Sampling
    pictures: dict[str, Image] = field(default_factory=dict)
    png: bytes = b""

    def draw(self, step: int, *strengths: float) -> Iterator[Event]:
        """A picture for each strength. A failure becomes a Notice: the run is done without them."""
        if self.sampling.folder is None:
            return
        for strength in strengths:
            label = f"step {step} at {strength:g}"
            yield Progress("saving", len(self.pictures), _PICTURES, f"Drawing {label} for the report")
            try:
                if picture := self.sampling.picture(self.sampling.requests()[0], strength):
                    self.pictures[label] = picture
            except Exception as error:  # noqa: BLE001 - the adapter is learned, whatever it was
                yield failure_notice(error)
                return

    def save(self, name: str, step: int) -> Iterator[Event]:
        """Writes what was drawn into the run's samples as `name`."""
        if not self.pictures:
            return
        prompt, content, path = self.sampling.requests()[0].prompt, BytesIO(), self.sampling.folder / name
        try:
            label_grid([list(self.pictures.values())], [prompt], list(self.pictures)).save(content, "PNG")
            self.png = content.getvalue()
            replace_file(path, self.png)
        except OSError as error:
            yield Notice(f"{name} could not be written: {error.strerror}.")
        else:
            yield Sampled(path, step, f"{prompt}: {', '.join(self.pictures)}")
