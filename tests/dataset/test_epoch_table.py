"""What an epoch draws, beside the schedule that draws it."""

from __future__ import annotations

from collections import Counter

from lib_trainer.dataset.edits import change_edits
from lib_trainer.dataset.epoch_table import epoch_table
from lib_trainer.dataset.sampler import Schedule
from lib_trainer.dataset.scan import scan_folder
from tests.dataset.tiny import make_recipe


def test_the_table_is_what_the_schedule_draws(tmp_path, draw_picture):
    for name in ("3_jeff/a", "3_jeff/b", "1_man/c"):
        draw_picture(f"{name}.png")
    change_edits(tmp_path / "1_man", {}, regularisation=True)
    recipe = make_recipe(tmp_path, epoch=4)
    scan = scan_folder(recipe.dataset)
    schedule = Schedule(scan, recipe)
    drawn = Counter(scan.samples[draw.sample].image.parent.name for batch in schedule.epoch(1) for draw in batch)
    rows = epoch_table(scan, schedule.steps)
    assert [(row.folder.name, row.pictures, row.repeats, row.drawn) for row in rows] == [
        ("1_man", 1, 1, drawn["1_man"]), ("3_jeff", 2, 3, drawn["3_jeff"]),
    ]  # fmt: skip
    assert [(row.times, row.regularising) for row in rows] == [(4.0, True), (12.0, False)]
