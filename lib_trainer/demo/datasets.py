"""The two small datasets of the demo, in the folder form of the guide, and held-out pictures.

Neither the character nor the rendering style exists in the world that the embedded model was trained on.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import count, islice, product
from pathlib import Path
from random import Random

from lib_trainer.demo.canvas import Canvas, Pen
from lib_trainer.demo.faces import Face, draw_face
from lib_trainer.demo.subjects import SHAPES, THINGS
from lib_trainer.demo.world import COLOURS, SKINS, Drawing, draw_random

SIZE_PX = 64
FACE_WORD, STYLE_WORD = "jeff_person", "style_name"
FACE_FOLDER, STYLE_FOLDER = f"10_{FACE_WORD}", f"30_{STYLE_WORD}"

JEFF = Face(
    skin=SKINS["light"],
    hair=(150, 40, 200),
    shirt=COLOURS["yellow"],
    hair_style="mohawk",
    glasses=(40, 190, 80),
    nose=(230, 40, 40),
)
# Expression, gaze, background. Each one appears in the folder; the held-out pictures combine them in other ways.
FACE_SCENES = (
    ("", "at camera", "blue"),
    ("smiling", "at camera", "white"),
    ("serious", "left", "gray"),
    ("sad", "at camera", "orange"),
    ("surprised", "at camera", "brown"),
    ("smiling", "right", "pink"),
    ("serious", "at camera", "black"),
    ("smiling", "left", "blue"),
    ("sad", "right", "white"),
    ("surprised", "left", "gray"),
    ("serious", "right", "orange"),
    ("smiling", "at camera", "brown"),
)
HELD_OUT_FACE_SCENES = (
    ("smiling", "at camera", "blue"),
    ("sad", "left", "pink"),
    ("surprised", "right", "white"),
    ("serious", "at camera", "brown"),
    ("", "at camera", "green"),
    ("smiling", "at camera", "red"),
    ("surprised", "at camera", "black"),
    ("serious", "left", "white"),
)

PAPER = COLOURS["yellow"]
INKS = tuple(COLOURS[name] for name in ("black", "purple", "pink"))
STYLE_PEN = Pen(outline=COLOURS["black"], tones=INKS, line_width=0.04)
STYLE_SUBJECTS = ("house", "tree", "cat", "dog", "car", "boat", "flower", "mushroom", "cup", "robot", "rocket", "apple")
UNSEEN_SUBJECTS = ("castle", "fish", "star", "heart")
STYLE_COLOURS = ("blue", "yellow", "red", "green", "white", "black")


def draw_face_dataset(folder: Path) -> Path:
    """Write `folder/10_jeff_person/NN.png` and `.txt`: one character in 12 poses. Returns `folder`."""
    # Seeded by name: the datasets are the same on every machine.
    rng = Random("face")
    return _write(folder, FACE_FOLDER, [_draw_jeff(rng, *scene) for scene in FACE_SCENES])


def draw_style_dataset(folder: Path) -> Path:
    """Write `folder/30_style_name/NN.png` and `.txt`: 12 things twice, in one rendering style. Returns `folder`."""
    rng = Random("style")
    drawings = [_draw_styled(rng, name, "{}, painted in {} style") for _, name in product(range(2), STYLE_SUBJECTS)]
    return _write(folder, STYLE_FOLDER, drawings)


def heldout_face() -> list[Drawing]:
    """The character in poses and before backgrounds that the folder does not have."""
    rng = Random("held-out face")
    return [_draw_jeff(rng, *scene) for scene in HELD_OUT_FACE_SCENES]


def heldout_style() -> list[Drawing]:
    """The style on subjects of the folder, drawn anew, and on subjects that the folder does not have."""
    rng = Random("held-out style")
    subjects = (*STYLE_SUBJECTS[:6], *UNSEEN_SUBJECTS)
    return [_draw_styled(rng, name, "{}, painted in {} style") for name in subjects]


def unseen_style() -> list[Drawing]:
    """The style on a subject, and under a caption, that it was never seen with."""
    rng = Random("unseen style")
    return [_draw_styled(rng, "triangle", "{} in {} style") for _ in range(6)]


def prior_drawings(pictures: int = 16) -> list[Drawing]:
    """Pictures of the world that have nothing to do with the character or the style: things and shapes, no people."""
    drawings = (draw_random(Random(f"prior {number}"), SIZE_PX) for number in count())
    return list(islice((drawing for drawing in drawings if "person" not in drawing.caption), pictures))


def _draw_jeff(rng: Random, expression: str, gaze: str, background: str) -> Drawing:
    canvas = Canvas(SIZE_PX, COLOURS[background])
    centre = (0.5 + rng.uniform(-0.05, 0.05), 0.55 + rng.uniform(-0.02, 0.05))
    canvas.place(centre, rng.uniform(0.38, 0.45), rng.uniform(-8, 8))
    draw_face(canvas, replace(JEFF, expression=expression or JEFF.expression, gaze=gaze))
    parts = [FACE_WORD, "portrait photo", *([expression] if expression else []), f"looking {gaze}"]
    # The first picture of a folder carries the guide's own caption, word for word.
    where = f" on a {background} background" if expression else ""
    return Drawing(canvas.picture(), ", ".join(parts) + where)


def _draw_styled(rng: Random, name: str, caption: str) -> Drawing:
    canvas = Canvas(SIZE_PX, PAPER, STYLE_PEN)
    centre = (0.5 + rng.uniform(-0.06, 0.06), 0.5 + rng.uniform(-0.06, 0.06))
    canvas.place(centre, rng.uniform(0.32, 0.42), rng.uniform(-8, 8))
    {**SHAPES, **THINGS}[name](canvas, COLOURS[rng.choice(STYLE_COLOURS)])
    article = "an" if name[0] in "aeio" else "a"
    return Drawing(canvas.picture(), caption.format(f"{article} {name}", STYLE_WORD))


def _write(folder: Path, name: str, drawings: list[Drawing]) -> Path:
    (folder / name).mkdir(parents=True, exist_ok=True)
    for number, drawing in enumerate(drawings, start=1):
        # PNG, because JPEG's blocks would be learned at this size.
        drawing.picture.save(folder / name / f"{number:02}.png")
        (folder / name / f"{number:02}.txt").write_text(drawing.caption + "\n", encoding="utf-8")
    return folder
