"""Masks: where a picture counts. White counts in full, black as little as the recipe says.

`NAME.mask.png` or `NAME-masklabel.png` (OneTrainer) beside a picture, `masks/NAME.png` in its folder, or the picture's
own alpha channel. A mask is resized, cropped and mirrored as its picture is, and averaged over each latent cell.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from lib_trainer.config.recipe import DatasetConfig
from lib_trainer.dataset.augment import Augmentation
from lib_trainer.dataset.buckets import Bucket
from lib_trainer.dataset.folders import MASKS_DIR
from lib_trainer.dataset.images import crop_of, decode_alpha, open_picture

_SUFFIXES = (".mask", "-masklabel")
_ENDING = ".png"


def is_mask_name(stem: str, stems: Container[str]) -> bool:
    """Whether a picture of this name is the mask of another in the same folder."""
    return any(stem.endswith(suffix) and stem.removesuffix(suffix) in stems for suffix in _SUFFIXES)


def mask_file(image: Path) -> Path | None:
    """The mask file of a picture, None without one. A link is none: it could lead anywhere."""
    beside = [image.with_name(f"{image.stem}{suffix}{_ENDING}") for suffix in _SUFFIXES]
    paths = [*beside, image.parent / MASKS_DIR / f"{image.stem}{_ENDING}"]
    return next((path for path in paths if path.is_file() and not path.is_symlink()), None)


def read_mask(data: bytes, image: Path, size: tuple[int, int]) -> tuple[Image.Image, str] | None:
    """The grey mask of a picture and what tells it from others; None where the whole picture counts.

    Args:
        data: the bytes of the picture's own file.
        size: of the picture as seen; a mask file of another size is resized to it.

    Raises:
        UnreadablePicture: the mask file is not a picture.
    """
    path = mask_file(image)
    if path is None:
        alpha = decode_alpha(data, image)
        # A channel without a transparent pixel is what programs write by habit.
        return None if alpha is None or alpha.getextrema()[0] == 255 else (alpha, "alpha")
    mask = open_picture(path).convert("L")
    if mask.size != size:
        mask = mask.resize(size, Image.Resampling.BOX)
    return mask, hashlib.sha256(mask.tobytes()).hexdigest()


def cut_mask(
    mask: Image.Image, bucket: Bucket, config: DatasetConfig, augmentation: Augmentation | None = None
) -> Tensor:
    """(H, W) float32 in 0…1: the part of a mask that `images.cut` cuts out of its picture."""
    change = augmentation or Augmentation()
    part = mask.resize(
        (bucket.width_px, bucket.height_px),
        Image.Resampling.BILINEAR,
        box=crop_of(mask.size, bucket, config, change).box,
    )
    if change.mirrored:
        part = ImageOps.mirror(part)
    return torch.from_numpy(np.array(part)).float() / 255


def mask_of_latents(mask: Tensor, latents: Tensor) -> Tensor:
    """(h, w): a mask (H, W) averaged over the cells of latents (C, h, w), as kohya's sd-scripts does."""
    return F.interpolate(mask[None, None], size=latents.shape[-2:], mode="area")[0, 0]
