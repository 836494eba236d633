"""Pictures that stand for photographs: noise with the spectrum of natural images, and things of all sizes in front."""

from __future__ import annotations

import colorsys
from random import Random

import numpy as np
from PIL import Image, ImageDraw, ImageFilter


def photograph(seed: str, width: int = 800, height: int = 800) -> Image.Image:
    """A scene of its own for each seed: place, colours, light and framing vary."""
    rng = Random(f"photograph {seed}")
    picture = _place(rng, width, height)
    draw = ImageDraw.Draw(picture)
    for _ in range(rng.randint(5, 12)):
        _thing(rng, draw, width, height)
    subject = rng.uniform(0.15, 0.4) * min(width, height)
    x, y = rng.uniform(0.35, 0.65) * width, rng.uniform(0.4, 0.6) * height
    draw.ellipse((x - subject, y - 1.2 * subject, x + subject, y + 1.2 * subject), fill=_colour(rng, darkest=0.5))
    for side in (-0.4, 0.4):
        eye = 0.12 * subject
        draw.ellipse((x + side * subject - eye, y - eye, x + side * subject + eye, y + eye), fill=_colour(rng))
    grain = _noise(rng, width, height, 0.6)
    grained = np.asarray(picture.filter(ImageFilter.GaussianBlur(0.7)), dtype=np.float32) + 9 * grain[..., None]
    return Image.fromarray(grained.clip(0, 255).astype(np.uint8))


def _place(rng: Random, width: int, height: int) -> Image.Image:
    """A backdrop: mostly textured, sometimes plain and sometimes white as in a studio."""
    if rng.random() < 0.1:
        return Image.new("RGB", (width, height), "white")
    low, high = np.array(_colour(rng), dtype=np.float32), np.array(_colour(rng), dtype=np.float32)
    texture = _noise(rng, width, height, rng.uniform(1.0, 1.5))
    share = ((texture + 2) / 4).clip(0, 1)[..., None]
    return Image.fromarray((low + (high - low) * share).astype(np.uint8))


def _noise(rng: Random, width: int, height: int, exponent: float) -> np.ndarray:
    """(height, width) at mean 0 and spread 1, with a spectrum of 1/f^exponent: that of natural images is near 1/f."""
    values = np.random.default_rng(rng.getrandbits(32)).standard_normal((height, width))
    frequencies = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequencies[0, 0] = 1
    shaped = np.fft.irfft2(np.fft.rfft2(values) / frequencies**exponent, s=(height, width))
    return ((shaped - shaped.mean()) / shaped.std()).astype(np.float32)


def _thing(rng: Random, draw: ImageDraw.ImageDraw, width: int, height: int) -> None:
    x, y, size = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(0.03, 0.25) * min(width, height)
    box = (x - size, y - size * rng.uniform(0.4, 1.5), x + size, y + size * rng.uniform(0.4, 1.5))
    shape = rng.choice((draw.ellipse, draw.rectangle, draw.line))
    if shape == draw.line:
        draw.line(box, fill=_colour(rng), width=max(2, round(size / 6)))
    else:
        shape(box, fill=_colour(rng))


def _colour(rng: Random, darkest: float = 0.15) -> tuple[int, int, int]:
    parts = colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.1, 0.9), rng.uniform(darkest, 0.9))
    return tuple(round(255 * part) for part in parts)
