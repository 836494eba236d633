"""How like the training pictures the report's pictures are, by a CLIP that lies on the disk already; else nothing.

Nothing is downloaded. A CLIP is a folder as transformers writes it (`config.json`, `model.safetensors`), below `models`
or in Hugging Face's cache. Image similarity as of CLIP-I (Ruiz et al., "DreamBooth", 2023).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lib_trainer.dataset.images import UnreadablePicture, open_picture, shown_name

_KINDS = ("clip", "clip_vision_model")
_CONFIG, _WEIGHTS = "config.json", "model.safetensors"
# Below the host's models, as people keep them; deeper folders of these too.
_FOLDERS = ("CLIP", "clip", "clip_vision", "ControlNetPreprocessor")
# The largest of them takes about a second a picture on a CPU.
_MOST_PICTURES, _BATCH = 24, 8
# What every published CLIP was trained with: https://github.com/openai/CLIP, `clip.py`.
_MEAN, _SPREAD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Likeness:
    """Of one drawn picture; cosines, 1 for the same picture.

    Attributes:
        mean: with all training pictures, on average.
        nearest: the training picture that is most like it, and how much.
    """

    label: str
    mean: float
    nearest: tuple[str, float]


def find_clip(models: Path) -> Path | None:
    """The first CLIP with an image encoder below these folders, or in Hugging Face's cache."""
    for config in _configs(models):
        try:
            kind = json.loads(config.read_text("utf-8")).get("model_type")
        except (OSError, ValueError, AttributeError):
            continue
        # Weights in a pickle are left alone.
        if kind in _KINDS and (config.parent / _WEIGHTS).is_file():
            return config.parent
    return None


def _configs(models: Path) -> Iterator[Path]:
    for name in _FOLDERS:
        yield from sorted((models / name).rglob(_CONFIG))
    home = os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface"
    cache = Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub")
    # The text encoders of checkpoints lie there too, so that only names with CLIP in them are read.
    yield from sorted(cache.glob(f"models--*[cC][lL][iI][pP]*/snapshots/*/{_CONFIG}"))


def compare_with_dataset(models: Path, drawn: Mapping[str, Image.Image], pictures: Sequence[Path]) -> list[Likeness]:
    """Every drawn picture beside the training pictures; nothing where no CLIP is found. Runs on the CPU.

    Args:
        models: the host's folder of models.
        drawn: label -> picture.
    """
    folder = find_clip(models) if drawn else None
    shown = dict(_read(pictures[:_MOST_PICTURES])) if folder else {}
    if not folder or not shown:
        return []
    encoder = _load(folder)
    known, found = _encode(encoder, list(shown.values())), _encode(encoder, list(drawn.values()))
    names, rows = list(shown), (found @ known.T).tolist()
    return [
        Likeness(label, sum(row) / len(row), max(zip(names, row, strict=True), key=lambda pair: pair[1]))
        for label, row in zip(drawn, rows, strict=True)
    ]


def _read(pictures: Sequence[Path]) -> Iterator[tuple[str, Image.Image]]:
    for path in pictures:
        try:
            yield shown_name(path), open_picture(path)
        except UnreadablePicture:
            continue


def _load(folder: Path) -> Any:
    # Late: transformers takes seconds to import, and most hosts have no CLIP of this kind.
    from transformers import CLIPVisionModelWithProjection

    encoder = CLIPVisionModelWithProjection.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    return encoder.float().eval()


@torch.no_grad()
def _encode(encoder: Any, pictures: Sequence[Image.Image]) -> Tensor:
    """(N, D) of length 1."""
    side = encoder.config.image_size
    found = []
    for start in range(0, len(pictures), _BATCH):
        pixels = torch.stack([_pixels(picture, side) for picture in pictures[start : start + _BATCH]])
        found.append(encoder(pixels).image_embeds)
    return torch.nn.functional.normalize(torch.cat(found), dim=1)


def _pixels(picture: Image.Image, side: int) -> Tensor:
    """(3, side, side): the middle square, as CLIP was trained."""
    scale = side / min(picture.size)
    width, height = (max(side, round(edge * scale)) for edge in picture.size)
    left, top = (width - side) // 2, (height - side) // 2
    square = picture.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
    square = square.crop((left, top, left + side, top + side))
    values = torch.from_numpy(np.array(square)).float() / 255
    return ((values - torch.tensor(_MEAN)) / torch.tensor(_SPREAD)).permute(2, 0, 1)
