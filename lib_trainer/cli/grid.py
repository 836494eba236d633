"""`grid`: prompts × strengths, as one picture."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path

from PIL.Image import Image
from tqdm import tqdm

from lib_trainer.cli.hosts import open_host
from lib_trainer.cli.output import Answer
from lib_trainer.disk import write_whole
from lib_trainer.errors import UserError
from lib_trainer.host.base import GenerateRequest
from lib_trainer.host.standalone import StandaloneHost
from lib_trainer.preview.grid import Column, prompt_grid, strength_columns

GRID_FILE = "strength_grid.png"


def run_grid(given: argparse.Namespace) -> Answer:
    """Draws, and answers where the grid is."""
    host = open_host(given.out, given.checkpoint)
    strengths = [_number(part, "--strengths") for part in given.strengths.split(",")]
    other = None
    if given.other:
        name, _, strength = given.other.rpartition(":")
        other = (name, _number(strength, "--with"))
    width_px, height_px = _size(given.size) if given.size else (host.native_size_px,) * 2
    path = given.file or given.out / GRID_FILE
    request = GenerateRequest("", given.negative, width_px, height_px, given.steps, seed=given.seed)
    columns = strength_columns(given.lora, strengths, other)
    save_picture(path, draw_grid(host, request, given.prompt, columns))
    return Answer({"path": path}, (str(path),))


def draw_grid(
    host: StandaloneHost, request: GenerateRequest, prompts: Sequence[str], columns: Sequence[Column]
) -> Image:
    """The grid of `prompts` × `columns`, every picture as `request` says but for its prompt."""
    with tqdm(total=len(prompts) * len(columns), desc="drawing") as bar:

        def draw(prompt: str) -> Image:
            picture = host.run_exclusive(lambda: host.generate(replace(request, prompt=prompt)))[0]
            bar.update()
            return picture

        return prompt_grid(draw, prompts, columns)


def save_picture(path: Path, picture: Image) -> None:
    """Writes a PNG whole or not at all."""
    content = BytesIO()
    picture.save(content, "PNG")
    write_whole(path, content.getvalue())


def _number(text: str, option: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise UserError(f"{text!r} in {option} is no strength.", "Write numbers like 0.8.") from error


def _size(text: str) -> tuple[int, int]:
    try:
        width, height = (int(side) for side in text.lower().split("x"))
    except ValueError as error:
        raise UserError(f"{text!r} in --size is no size.", "Write it like 512x512.") from error
    return width, height
