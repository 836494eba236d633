"""What the standalone host notes of its pictures, and where its grids go: as the WebUIs do it."""

from __future__ import annotations

import json
import os
from pathlib import Path

from PIL.Image import Image

from lib_trainer.host.base import GenerateRequest
from lib_trainer.utils.atomic_file import write_whole
from lib_trainer.utils.png import png_bytes

GRID_NAME = "train_lora_grid"


def infotext_of(request: GenerateRequest, sampler: str, checkpoint: str, sha256: str, place: int) -> str:
    """Prompt, negative prompt and settings in the WebUIs' form, for picture `place` of the batch."""
    settings = {
        "Steps": request.steps,
        "Sampler": sampler,
        "CFG scale": request.cfg_scale,
        "Seed": request.seed + place,
        "Size": f"{request.width_px}x{request.height_px}",
        "Model hash": sha256[:10],
        "Model": _quoted(Path(checkpoint).stem),
    }
    lines = [request.prompt]
    if request.negative_prompt:
        lines.append(f"Negative prompt: {request.negative_prompt}")
    return "\n".join([*lines, ", ".join(f"{key}: {value}" for key, value in settings.items())])


def save_picture(path: Path, picture: Image, infotext: str) -> None:
    """A PNG with its infotext, whole or not at all. Raises UserError when it cannot be written."""
    write_whole(path, png_bytes(picture, infotext))


def next_path(folder: Path, seed: int) -> Path:
    """`train_lora_grid-0003-SEED.png`: the number after the highest that is there."""
    numbers = [-1]
    if folder.is_dir():
        for name in os.listdir(folder):
            head, _, rest = name.partition("-")
            number = rest.partition("-")[0]
            if head == GRID_NAME and number.isdigit():
                numbers.append(int(number))
    return folder / f"{GRID_NAME}-{max(numbers) + 1:04}-{seed}.png"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False) if any(mark in text for mark in ',\n:"') else text
