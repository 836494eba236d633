"""What the page says of a scanned folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from lib_trainer.dataset.scan import Sample, Scan, Skipped
from lib_trainer.ui.dataset_panel import warnings_of

SAMPLES = (Sample(Path("a.png"), "word", 1, 1024, 1024, True),)


@pytest.mark.parametrize(
    ("files", "last"),
    [(5, "4.txt is skipped: not a picture"), (6, "1 more file is skipped."), (7, "2 more files are skipped.")],
)
def test_five_skipped_files_are_named_and_the_others_counted(files: int, last: str) -> None:
    skipped = tuple(Skipped(Path(f"{number}.txt"), "not a picture") for number in range(files))
    said = warnings_of(Scan(SAMPLES, skipped, "word"))
    assert len(said) == min(files, 6) and said[0] == "0.txt is skipped: not a picture" and said[-1] == last
