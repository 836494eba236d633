"""Scores what the file of one step draws at one strength.

A: likeness × obedience × unrelated prompts kept. B: A × variety.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from itertools import product
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.learning import detector
from benchmarks.learning.drawing import Easel
from lib_trainer.demo import datasets
from lib_trainer.demo.recipes import DEMO_RUNS

BACKGROUNDS = ("blue", "white", "pink")
SUBJECTS = ("house", "cat", "cup")
UNRELATED = (
    "a red circle on a blue background",
    "a green tree on a white background",
    "a portrait of a person with short brown hair, smiling, looking at camera on a gray background",
    "a purple car on a yellow background",
)
# Seeds of each prompt, in two halves that are scored apart: of what is learned, and of unrelated prompts.
OWN_SEEDS, UNRELATED_SEEDS = 12, 2

# The pictures of one prompt, a seed each.
Groups = list[list[Image.Image]]


@dataclass(frozen=True)
class Score:
    """How one half of the seeds does, 0 to 1 each; variety may be more, and counts as 1 then."""

    likeness: float
    obedience: float
    kept: float
    variety: float

    @property
    def a(self) -> float:
        return self.likeness * self.obedience * self.kept

    @property
    def b(self) -> float:
        return self.a * min(1.0, self.variety)

    def mixed(self, other: Score, share: float) -> Score:
        """This much of the way to the other."""
        values = zip(astuple(self), astuple(other), strict=True)
        return Score(*(mine + share * (theirs - mine) for mine, theirs in values))


@dataclass(frozen=True)
class Cell:
    """What is drawn with the file of one step at one strength."""

    step: int
    strength: float
    halves: tuple[Score, Score]

    @classmethod
    def from_values(cls, values: dict[str, Any]) -> Cell:
        first, second = (Score(**half) for half in values["halves"])
        return cls(values["step"], values["strength"], (first, second))

    @property
    def whole(self) -> Score:
        """By all seeds."""
        one, other = self.halves
        return one.mixed(other, 0.5)


@dataclass(frozen=True)
class Expected:
    """What a subject is scored against.

    Attributes:
        base: pictures of UNRELATED without an adapter.
        spread: how far pictures lie apart that vary as they should.
    """

    subject: str
    base: Groups
    spread: float


def score_cells(easel: Easel, files: dict[int, Path], subject: str, strengths: Sequence[float]) -> Iterator[Cell]:
    """Every step × strength, by what is drawn. `files` has the adapter of each step."""
    base = easel.draw(UNRELATED, UNRELATED_SEEDS)
    expected = Expected(subject, base, detector.spread(_class_pictures(easel, subject)))
    prompts, asked = _own_prompts(subject, DEMO_RUNS[subject].name)
    for (step, file), strength in product(files.items(), strengths):
        own = easel.draw(prompts, OWN_SEEDS, file, strength)
        unrelated = easel.draw(UNRELATED, UNRELATED_SEEDS, file, strength)
        first, second = (_score(expected, own, unrelated, asked, half) for half in (0, 1))
        yield Cell(step, strength, (first, second))


def _score(expected: Expected, own: Groups, unrelated: Groups, asked: Sequence[str], half: int) -> Score:
    mine, others = (_halves(groups)[half] for groups in (own, unrelated))
    see = detector.see_face if expected.subject == "face" else detector.see_style
    seen = see(_flat(mine), [word for word, group in zip(asked, mine, strict=True) for _ in group])
    kept = detector.kept(_flat(others), _flat(_halves(expected.base)[half]))
    return Score(seen.likeness, seen.obedience, kept, detector.spread(mine) / expected.spread)


def _halves(groups: Groups) -> tuple[Groups, Groups]:
    middle = len(groups[0]) // 2
    return [group[:middle] for group in groups], [group[middle:] for group in groups]


def _flat(groups: Groups) -> list[Image.Image]:
    return [picture for group in groups for picture in group]


def _own_prompts(subject: str, word: str) -> tuple[list[str], Sequence[str]]:
    if subject == "face":
        text = "{}, portrait photo, smiling, looking at camera on a {} background"
        return [text.format(word, name) for name in BACKGROUNDS], BACKGROUNDS
    return [f"a {name}, painted in {word} style" for name in SUBJECTS], SUBJECTS


def _class_pictures(easel: Easel, subject: str) -> Groups:
    """Pictures that vary as they should: the base's own people, or real drawings in the style."""
    if subject == "style":
        return [[drawing.picture for drawing in datasets.unseen_style()]]
    return easel.draw(["a portrait of a person, smiling, looking at camera on a blue background"], OWN_SEEDS)
