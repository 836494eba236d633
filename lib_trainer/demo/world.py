"""The small world that the embedded model knows: shapes, things and people, each with a caption.

Everything is drawn by code from a seed, so the pictures need no licence and no download.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from random import Random

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lib_trainer.demo.canvas import FLAT, Canvas, Colour, Pen
from lib_trainer.demo.faces import EXPRESSIONS, GAZES, HAIR_STYLES, Face, draw_face
from lib_trainer.demo.subjects import SHAPES, THINGS, Draw

COLOURS: dict[str, Colour] = {
    "red": (215, 45, 45),
    "orange": (245, 145, 40),
    "yellow": (245, 220, 60),
    "green": (50, 160, 70),
    "blue": (45, 90, 215),
    "purple": (140, 60, 180),
    "pink": (245, 150, 190),
    "brown": (130, 80, 45),
    "black": (30, 30, 34),
    "gray": (135, 138, 142),
    "white": (242, 242, 238),
}
HAIR_COLOURS = ("black", "brown", "yellow", "red", "gray", "orange")
SKINS: dict[str, Colour] = {"light": (250, 215, 185), "tan": (215, 165, 120), "dark": (125, 80, 55)}
STYLES: dict[str, Pen] = {
    "sketch": Pen(outline=(40, 40, 40), fill=(248, 248, 245)),
    "neon": Pen(outline=(90, 255, 210), fill=(20, 15, 50)),
}
LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Drawing:
    """A picture and its caption."""

    picture: Image.Image
    caption: str


def draw_random(rng: Random, size_px: int = 64) -> Drawing:
    """One drawing of the world: two fifths people, two fifths things, one fifth shapes."""
    kind = rng.random()
    # A few styles, so that the model knows what a style is before it is asked to learn one.
    style = rng.choice(list(STYLES)) if rng.random() < 0.12 else ""
    canvas, where = _background(rng, size_px, style)
    text = _person(rng, canvas) if kind < 0.4 else _thing(rng, canvas, THINGS if kind < 0.8 else SHAPES, bool(style))
    # Captions leave things out now and then, as people's do.
    if where and rng.random() < 0.9:
        text += where
    if style:
        text += f", in {style} style"
    return Drawing(canvas.picture(), _maybe_named(rng, _with_article(text)))


def jitter(rng: Random, colour: Colour, amount: int = 10) -> Colour:
    """`colour` with each channel moved by up to `amount` of 255."""
    red, green, blue = (min(255, max(0, part + rng.randint(-amount, amount))) for part in colour)
    return red, green, blue


def _background(rng: Random, size_px: int, style: str) -> tuple[Canvas, str]:
    if style:
        pen = STYLES[style]
        return Canvas(size_px, pen.fill or COLOURS["white"], pen), ""
    name, second = rng.sample(list(COLOURS), 2)
    canvas = Canvas(size_px, jitter(rng, COLOURS[name]), FLAT)
    kind = rng.random()
    if kind < 0.07:
        canvas.stripes(jitter(rng, COLOURS[second]), rng.uniform(0.13, 0.28), rng.choice((0, 45, 90, 135)))
        return canvas, f", on a striped {name} and {second} background"
    if kind < 0.1:
        canvas.dots(jitter(rng, COLOURS[second]), rng.uniform(0.2, 0.3))
        return canvas, f", on a dotted {name} and {second} background"
    return canvas, f" on a {name} background"


def _thing(rng: Random, canvas: Canvas, choices: dict[str, Draw], colourless: bool) -> str:
    name = rng.choice(list(choices))
    # A thing in the colour of its background could not be seen.
    colour = rng.choice([c for c, rgb in COLOURS.items() if _distance(rgb, canvas.background) > 90])
    small = rng.random() < 0.15
    scale = rng.uniform(0.18, 0.24) if small else rng.uniform(0.3, 0.42)
    margin = 0.5 - scale
    centre = (0.5 + rng.uniform(-margin, margin) * 0.6, 0.5 + rng.uniform(-margin, margin) * 0.6)
    canvas.place(centre, scale, rng.uniform(-8, 8))
    choices[name](canvas, jitter(rng, COLOURS[colour]))
    opening = rng.choice(("a", "a", "a", "a photo of a", "a drawing of a", "a painted"))
    described = ["small" if small else "", "" if colourless or rng.random() < 0.08 else colour, name]
    return " ".join([opening, *(word for word in described if word)])


def _person(rng: Random, canvas: Canvas) -> str:
    hair, shirt = rng.choice(HAIR_COLOURS), rng.choice(list(COLOURS))
    glasses = rng.choice(("black", "red", "blue", "white")) if rng.random() < 0.25 else ""
    role = rng.choice(("superhero", "king")) if rng.random() < 0.16 else ""
    hat = rng.choice(list(COLOURS)) if not role and rng.random() < 0.2 else ""
    skin = rng.choice(list(SKINS))
    face = Face(
        skin=jitter(rng, SKINS[skin]),
        hair=jitter(rng, COLOURS[hair]),
        shirt=jitter(rng, COLOURS[shirt]),
        hair_style=rng.choices(HAIR_STYLES, (4, 3, 2, 1))[0],
        expression=rng.choice(EXPRESSIONS),
        gaze=rng.choices(list(GAZES), (3, 1, 1))[0],
        glasses=COLOURS[glasses] if glasses else None,
        hat=jitter(rng, COLOURS[hat]) if hat else None,
        beard=rng.random() < 0.2,
        role=role,
    )
    canvas.place(
        (0.5 + rng.uniform(-0.06, 0.06), 0.54 + rng.uniform(-0.04, 0.06)), rng.uniform(0.36, 0.47), rng.uniform(-8, 8)
    )
    draw_face(canvas, face)
    return _describe(rng, face, skin, hair, shirt, glasses, hat)


def _describe(rng: Random, face: Face, skin: str, hair: str, shirt: str, glasses: str, hat: str) -> str:
    opening = rng.choice(("a portrait of a person", "portrait photo of a person", "person, portrait photo", "a person"))
    role = f" as a {face.role}" if face.role else ""
    parts = [
        f"{face.hair_style} hair" if face.hair_style == "no" else f"{face.hair_style} {hair} hair",
        f"{skin} skin",
        face.expression,
        f"looking {face.gaze}",
        f"wearing a {shirt} shirt",
    ]
    parts += [f"wearing {glasses} glasses"] if glasses else []
    parts += [f"wearing a {hat} hat"] if hat else []
    parts += ["a beard"] if face.beard else []
    kept = [part for part in parts if rng.random() < 0.75]
    rng.shuffle(kept)
    if kept and kept[0].endswith(("hair", "skin", "beard")):
        kept[0] = f"with {kept[0]}"
        return f"{opening}{role} {', '.join(kept)}"
    return ", ".join([f"{opening}{role}", *kept])


def _with_article(text: str) -> str:
    return re.sub(r"\ba(?= [aeio])", "an", text)


def _maybe_named(rng: Random, text: str) -> str:
    """Adds an unknown word now and then, so that an untrained trigger word does not upset the model."""
    if rng.random() >= 0.06:
        return text
    name = "".join(rng.choice(LETTERS) for _ in range(rng.randint(2, 6)))
    return text.replace("person", f"{name}_person", 1) if "person" in text else f"{text}, {name}"


def _distance(one: Colour, other: Colour) -> float:
    return sum((a - b) ** 2 for a, b in zip(one, other, strict=True)) ** 0.5


def to_pixels(pictures: list[Image.Image]) -> Tensor:
    """Pictures of one size -> (B, 3, H, W) float32 in −1…1."""
    stacked = np.stack([np.asarray(picture.convert("RGB"), dtype=np.float32) for picture in pictures])
    return torch.from_numpy(stacked).permute(0, 3, 1, 2).contiguous() / 127.5 - 1.0
