"""What goes wrong with pictures, done to clean ones on purpose."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from random import Random

from PIL import Image, ImageEnhance, ImageFilter, ImageOps

Distort = Callable[[Image.Image, Random], Image.Image]


def blurred(picture: Image.Image, rng: Random) -> Image.Image:
    return picture.filter(ImageFilter.GaussianBlur(rng.uniform(2.0, 5.0)))


def overexposed(picture: Image.Image, rng: Random) -> Image.Image:
    return ImageEnhance.Brightness(picture).enhance(rng.uniform(2.6, 4.0))


def underexposed(picture: Image.Image, rng: Random) -> Image.Image:
    return ImageEnhance.Brightness(picture).enhance(rng.uniform(0.1, 0.25))


def greyscale(picture: Image.Image, rng: Random) -> Image.Image:
    return picture.convert("L").convert("RGB")


def resaved(picture: Image.Image, rng: Random) -> Image.Image:
    data = BytesIO()
    picture.save(data, "JPEG", quality=rng.randint(25, 60))
    return Image.open(data).convert("RGB")


def resized(picture: Image.Image, rng: Random) -> Image.Image:
    share = rng.uniform(0.4, 0.8)
    return picture.resize((round(picture.width * share), round(picture.height * share)), Image.Resampling.LANCZOS)


def mirrored(picture: Image.Image, rng: Random) -> Image.Image:
    return ImageOps.mirror(picture)


def rotated(picture: Image.Image, rng: Random) -> Image.Image:
    quarters = (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270)
    return picture.transpose(rng.choice(quarters))


def turned_over(picture: Image.Image, rng: Random) -> Image.Image:
    """Mirrored top to bottom, or along a diagonal."""
    over = (Image.Transpose.FLIP_TOP_BOTTOM, Image.Transpose.TRANSPOSE, Image.Transpose.TRANSVERSE)
    return picture.transpose(rng.choice(over))


def cropped(picture: Image.Image, rng: Random) -> Image.Image:
    across, down = rng.uniform(0.7, 0.95), rng.uniform(0.7, 0.95)
    width, height = round(picture.width * across), round(picture.height * down)
    left, top = rng.randint(0, picture.width - width), rng.randint(0, picture.height - height)
    return picture.crop((left, top, left + width, top + height))


def small(picture: Image.Image, rng: Random) -> Image.Image:
    side = rng.randint(300, 700)
    return picture.resize((side, side), Image.Resampling.LANCZOS)


# The kind of finding -> what should lead to it. Copies lie beside the picture that they are made from.
IN_PLACE: dict[str, Distort] = {
    "blur": blurred, "bright": overexposed, "dark": underexposed, "grey": greyscale, "small": small,
}  # fmt: skip
COPIES: dict[str, Distort] = {
    "re-saved": resaved, "resized": resized, "mirrored": mirrored, "cropped": cropped,
    "rotated": rotated, "rotated and mirrored": turned_over,
}  # fmt: skip
