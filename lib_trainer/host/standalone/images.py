"""Infotexts and grid files of the standalone host, in the WebUIs' form."""

from __future__ import annotations

import os
from pathlib import Path

from PIL.Image import Image

from lib_trainer.host.base import GRID_NAME, GenerateRequest
from lib_trainer.utils.atomic_file import write_atomically
from lib_trainer.utils.png import png_bytes, quoted


def infotext_of(request: GenerateRequest, sampler: str, checkpoint: str, sha256: str, index: int) -> str:
    """Prompt, negative prompt and settings in the WebUIs' form, for picture `index` of the batch."""
    settings = {
        "Steps": request.steps,
        "Sampler": sampler,
        "CFG scale": request.cfg_scale,
        "Seed": request.seed + index,
        "Size": f"{request.width_px}x{request.height_px}",
        "Model hash": sha256[:10],
        "Model": quoted(Path(checkpoint).stem),
    }
    lines = [request.prompt]
    if request.negative_prompt:
        lines.append(f"Negative prompt: {request.negative_prompt}")
    return "\n".join([*lines, ", ".join(f"{key}: {value}" for key, value in settings.items())])


def save_picture(path: Path, picture: Image, infotext: str) -> None:
    """A PNG with its infotext, whole or not at all. Raises UserError when it cannot be written."""
    write_atomically(path, png_bytes(picture, infotext))


def next_path(folder: Path, seed: int) -> Path:
    """`train_lora_grid-0003-SEED.png`: one more than the highest number in the folder."""
    taken = [-1]
    if folder.is_dir():
        for name in os.listdir(folder):
            # Numbers of removed grids are not used again while a later one exists.
            head, _, rest = name.partition("-")
            number = rest.partition("-")[0]
            if head == GRID_NAME and number.isdigit():
                taken.append(int(number))
    return folder / f"{GRID_NAME}-{max(taken) + 1:04}-{seed}.png"
