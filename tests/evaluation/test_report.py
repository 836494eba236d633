"""The meter and the report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lib_trainer.evaluation.report import show_meter, write_report
from lib_trainer.events import Evaluated

FIRST = Evaluated(
    step=100, learned=0.2, trained=0.3, drift=0.1, memorised=0.1, bound=0.05, least_loss_strength=1.1, score=0.2,
    strength=1.0, best_step=100, best_strength=1.0, verdict="not learned yet", advice="About 200 more <steps>.",
    curve=((0.0, 0.0), (1.0, 0.2)), by_picture={"a<b.png": 0.1, "c.png": 0.4},
)  # fmt: skip
SECOND = replace(FIRST, step=200, learned=0.4, best_step=200, best_strength=0.85, verdict="learned", advice="Done.")


def test_nothing_is_shown_before_the_first_evaluation() -> None:
    assert show_meter([]) == ""


def test_the_meter_says_what_is_learned_and_what_to_do() -> None:
    html = show_meter([FIRST])
    assert "not-learned-yet" in html and "20%" in html and "&lt;steps&gt;" in html and "<svg" not in html
    html = show_meter([FIRST, SECOND])
    assert 'class="train-lora-meter learned"' in html and "best: step 200 at 0.85" in html
    assert all(f'<polyline class="{kind}"' in html for kind in ("held", "trained", "drift"))


def test_without_held_out_pictures_there_is_no_curve_of_them() -> None:
    alone = [replace(item, memorised=None, bound=None) for item in (FIRST, SECOND)]
    html = show_meter(alone)
    assert "memorised" not in html and 'class="held"' not in html and '<polyline class="trained"' in html


def test_the_last_word_may_be_another() -> None:
    assert "Done." in show_meter([FIRST], SECOND)


def test_odd_pictures_are_named_with_what_to_do() -> None:
    odd = replace(SECOND, unlearned=("a<b.png",), at_once=tuple(f"{i}.png" for i in range(9)))
    html = show_meter([FIRST, odd])
    assert "Hardly learned: a&lt;b.png. Look at their captions" in html
    assert "7.png …. Duplicates" in html and "8.png" not in html


def test_the_report_has_every_picture_over_the_run(tmp_path: Path) -> None:
    found = [replace(FIRST, left={"a.png": 1.0, "b.png": 0.9}), replace(SECOND, left={"a.png": 0.5, "b.png": 0.8})]
    write_report(tmp_path / "x.html", "x", found, found[-1])
    text = (tmp_path / "x.html").read_text("utf-8")
    assert "<tr><td>b.png</td><td>90%</td><td>80%</td></tr><tr><td>a.png</td><td>100%</td><td>50%</td></tr>" in text


def test_the_report_is_one_file_that_needs_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "jeff.report.html"
    write_report(path, "jeff", [FIRST, SECOND], SECOND)
    text = path.read_text("utf-8")
    assert "Least learned: a&lt;b.png (10%)" in text and "strength 1" in text and "<td>200</td>" in text
    assert "src=" not in text and "href=" not in text
