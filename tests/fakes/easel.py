"""The drawing half of a host, quick and exact: every request has a picture of its own."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from lib_trainer.host.base import GenerateRequest
from lib_trainer.lora.describe import describe_lora
from lib_trainer.lora.info import LoraInfo
from lib_trainer.models.families import SD1, Family
from lib_trainer.utils.png import INFOTEXT_KEY


class Easel:
    """Draws at once, or waits before each picture until a test lets it.

    Attributes:
        requests: everything that was drawn.
        gate: when set, a picture takes one permit of it first.
        interrupt: what `interrupted` answers.
        broken: raised instead of the picture with this number.
    """

    def __init__(self, folder: Path) -> None:
        self.lora_dir = folder / "Lora"
        self.grid_dir = folder / "grids"
        self.lora_dir.mkdir(parents=True, exist_ok=True)
        self.busy = threading.Lock()
        self.requests: list[GenerateRequest] = []
        self.gate: threading.Semaphore | None = None
        self.interrupt = False
        self.broken: dict[int, Exception] = {}
        self.family: Family | None = SD1
        self.changed: list[Path] = []
        self.expected: list[int] = []
        self.sends: list[tuple[Any, Any]] = []

    def run_exclusive(self, fn: Callable) -> Any:
        with self.busy:
            return fn()

    def generate(self, request: GenerateRequest) -> list[Image.Image]:
        if self.gate:
            self.gate.acquire()
        if error := self.broken.get(len(self.requests)):
            raise error
        if self.interrupt:
            return []
        self.requests.append(request)
        picture = Image.new("RGB", (request.width_px, request.height_px), colour_of(request))
        picture.info[INFOTEXT_KEY] = f"{request.prompt}\nSteps: {request.steps}, Seed: {request.seed}"
        return [picture]

    @contextmanager
    def drawing(self, pictures: int) -> Iterator[None]:
        self.expected.append(pictures)
        yield

    def samplers(self) -> list[str]:
        return ["Euler", "DDIM"]

    def schedulers(self) -> list[str]:
        return ["Automatic", "Karras"]

    def drawing_family(self) -> Family | None:
        return self.family

    def drawing_size_px(self) -> int | None:
        return 64

    def loras(self, *, refresh: bool = False) -> list[LoraInfo]:
        return [describe_lora(path, path.stem, {}) for path in sorted(self.lora_dir.rglob("*.safetensors"))]

    def save_grid(self, picture: Image.Image, infotext: str, request: GenerateRequest) -> Path | None:
        self.grid_dir.mkdir(exist_ok=True)
        path = self.grid_dir / f"{len(list(self.grid_dir.iterdir())):04}.png"
        picture.save(path)
        path.with_suffix(".txt").write_text(infotext, encoding="utf-8")
        return path

    def label_font(self) -> Path | None:
        return None

    def bind_sending(self, button: Any, infotext: Any) -> bool:
        self.sends.append((button, infotext))
        return False

    def lora_changed(self, path: Path) -> None:
        self.changed.append(path)

    def count_tokens(self, text: str) -> int | None:
        return len(text.replace(",", " ,").split())

    def captioners(self) -> list[Any]:
        return []

    def interrupted(self) -> bool:
        return self.interrupt

    def put(self, *names: str) -> None:
        """Files of these names, without content."""
        for name in names:
            path = self.lora_dir / f"{name}.safetensors"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")


def colour_of(request: GenerateRequest) -> tuple[int, int, int]:
    digest = hashlib.sha256(repr(request).encode()).digest()
    return digest[0], digest[1], digest[2]
