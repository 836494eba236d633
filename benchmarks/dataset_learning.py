"""What mending a dataset changes: the same face trained from a spoiled folder, and from the folder made good."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.report import say, table
from lib_trainer.cli.demo import measure_file
from lib_trainer.dataset.checks.check_folder import check_folder
from lib_trainer.dataset.checks.finding import Finding
from lib_trainer.dataset.editing.bulk import Change
from lib_trainer.dataset.edits import PictureEdit, change_edits
from lib_trainer.dataset.scan import scan_folder
from lib_trainer.demo.evaluate import LearningFigures
from lib_trainer.demo.recipes import DEMO_RUNS
from lib_trainer.events import Finished
from lib_trainer.host.standalone.host import StandaloneHost
from lib_trainer.run import run

DEMO = DEMO_RUNS["face"]


@dataclass(frozen=True)
class Case:
    """One way in which a folder is spoiled, and how it is made good. Both change the folder of the face in place.

    Attributes:
        settings: what the run of the folder made good has besides.
    """

    name: str
    spoil: Callable[[Path], None]
    mend: Callable[[Path], None]
    settings: dict[str, Any]


def compare(cases: list[str], steps: int, seeds: int) -> Iterator[tuple[str, int, LearningFigures, LearningFigures]]:
    """(case, seed, figures of the spoiled folder, figures of the folder made good)."""
    for case in CASES:
        for seed in range(seeds if case.name in cases else 0):
            yield case.name, seed, _figures(case, steps, seed, mended=False), _figures(case, steps, seed, mended=True)


def report_comparison(case: str, seed: int, spoiled: LearningFigures, mended: LearningFigures) -> None:
    rows = [
        [f"{case}, seed {seed}", name, *(f"{figures.concept[at]:.4f}" for at in (0.0, 0.8, 1.0)), f"{figures.gain:.1%}"]
        for name, figures in (("as it was", spoiled), ("made good", mended))
    ]
    say(table(["folder", "", "strength 0", "0.8", "1", "loss gone"], rows))


def _figures(case: Case, steps: int, seed: int, *, mended: bool) -> LearningFigures:
    with tempfile.TemporaryDirectory() as place:
        out = Path(place)
        data = DEMO.draw(out / "data")
        own = next(data.glob(f"*_{DEMO.name}"))
        case.spoil(own)
        if mended:
            case.mend(own)
        changes = {"seed": seed, "max_train_steps": steps, **(case.settings if mended else {})}
        host = StandaloneHost(out)
        events = list(run(host, DEMO.recipe(data).with_values(changes)))
        path = next(event.path for event in events if isinstance(event, Finished))
        return host.run_exclusive(lambda: measure_file(host, path, DEMO))


def _untell(own: Path) -> None:
    """Captions that say everything but the trigger word."""
    for caption in own.glob("*.txt"):
        caption.write_text(Change("remove", DEMO.name).apply(caption.read_text()))


def _tell(own: Path) -> None:
    for caption in own.glob("*.txt"):
        caption.write_text(Change("first", DEMO.name).apply(caption.read_text()))


def _double(own: Path) -> None:
    """Two of twelve pictures ten times more, half of them mirrored, saved anew: as a careless download has them."""
    for number in (1, 2):
        for copy in range(10):
            picture = Image.open(own / f"{number:02}.png").convert("RGB")
            (picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if copy % 2 else picture).save(
                own / f"{number:02}-{copy}.jpg", quality=80
            )
            shutil.copy(own / f"{number:02}.txt", own / f"{number:02}-{copy}.txt")


def _leave_out_doubles(own: Path) -> None:
    """By the finding itself: of each group the first picture stays."""
    config = DEMO.recipe(own).dataset
    found = [item for item in check_folder(scan_folder(config), config) if isinstance(item, Finding)]
    doubles = [path for item in found if item.kind == "duplicate" for path in item.pictures[1:]]
    change_edits(own, {path.name: PictureEdit(excluded=True) for path in doubles})


def _leave(_own: Path) -> None:
    """Nothing is spoiled."""


def _mask(own: Path) -> None:
    """White where a picture is not of its background's colour, which is that of its upper left corner."""
    (own / "masks").mkdir()
    for path in own.glob("*.png"):
        pixels = np.asarray(Image.open(path).convert("RGB"), dtype=np.int16)
        differs = np.abs(pixels - pixels[0, 0]).max(2) > 12
        Image.fromarray((255 * differs).astype(np.uint8)).save(own / "masks" / path.name)


CASES = (
    Case("trigger word first", _untell, _tell, {}),
    Case("duplicates out", _double, _leave_out_doubles, {}),
    Case("masks", _leave, _mask, {"masked_loss": True, "unmasked_weight": 0.1}),
)
