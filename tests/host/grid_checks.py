"""What the contracts of grids do with a host."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from PIL import ExifTags, Image

from lib_trainer.adapter.attach import Adapter
from lib_trainer.host.base import GenerateRequest, Host
from lib_trainer.preview.drawing import Drawn, draw_cells
from lib_trainer.preview.grid_spec import GridSpec
from lib_trainer.utils.png import INFOTEXT_KEY
from tests.host.helpers import LOHA, learned_adapter, write_adapter

STRENGTHS = (0, 0.5, 1)
PROMPTS = ("a photo", "a (red) house")


class GridRoom(Protocol):
    """A host for the contract. `txt2img` draws an infotext by the host's own means, past everything of ours.

    Attributes:
        adapters: those that files were made of, by seed.
    """

    host: Host
    grid_suffix: str
    adapters: dict[int, Adapter]

    def run(self, fn: Any) -> Any: ...

    def request(self, prompt: str = "", **changes: Any) -> GenerateRequest: ...

    def txt2img(self, infotext: str) -> bytes: ...


def parse_infotext(text: str) -> dict[str, str]:
    """Prompt, Negative prompt, Steps, Seed … of a picture, as "PNG Info" reads them."""
    lines = text.split("\n")
    found = dict(part.split(": ", 1) for part in lines.pop().split(", "))
    negative = next((line for line in lines if line.startswith("Negative prompt: ")), "")
    prompt = "\n".join(line for line in lines if line != negative)
    return {**found, "Prompt": prompt, "Negative prompt": negative.removeprefix("Negative prompt: ")}


def infotext_of(picture: Image.Image) -> str:
    """PNG keeps it as a text, JPEG in EXIF's UserComment."""
    if INFOTEXT_KEY in picture.info:
        return picture.info[INFOTEXT_KEY]
    comment = picture.getexif().get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment]
    return comment.removeprefix(b"UNICODE\0").decode("utf-16-be")


def put(room: GridRoom, name: str, seed: int = 1, **metadata: str) -> Path:
    """A LoRA file with a large effect."""

    def work() -> Path:
        if seed not in room.adapters:
            with room.host.open_model() as model:
                room.adapters[seed] = learned_adapter(model.adaptable_layers(), LOHA, seed, share=0.5)
        path = write_adapter(room.host.lora_dir / f"{name}.safetensors", room.adapters[seed], **metadata)
        room.host.lora_changed(path)
        return path

    return room.run(work)


def drawn(room: GridRoom, plan: GridSpec) -> list[Drawn]:
    return room.run(lambda: list(draw_cells(room.host, plan)))
