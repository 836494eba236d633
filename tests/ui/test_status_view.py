"""How a run stands, as HTML."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("gradio")

from lib_trainer.events import Sampled
from lib_trainer.jobs.status import Queued, Status
from lib_trainer.ui.loss_chart import DRAWN_POINTS, draw_curve, smooth, thin
from lib_trainer.ui.status_view import PARTS, buttons_of, show_duration, show_pace, show_parts, show_status

TRAINING = Status(
    state="training", name="jeff", phase="Training", done=412, total=1200, step=412, steps=1200, epoch=4, loss=0.1234,
    learning_rate=3e-5, seconds_per_step=0.5, eta_seconds=394.0, peak_bytes=6 * 2**30, losses=((1, 0.2), (412, 0.1)),
)  # fmt: skip


def test_a_training_run_shows_its_numbers():
    html = show_status(TRAINING)
    for text in ("step 412 of 1200", "2.0 it/s", "7 min left", "loss 0.1234", "3.00e-05", "6.0 GB", "width:34.3%"):
        assert text in html
    assert 'data-live="1"' in html
    assert "<polyline" in html


def test_the_peak_stands_beside_the_prediction():
    html = show_status(replace(TRAINING, planned_bytes=round(6.2 * 2**30)))
    assert "6.0 GB at most (6.2 planned)" in html


def test_a_finished_run_shows_what_to_copy():
    html = show_status(Status(state="done", name="jeff", tag="<lora:jeff:0.8>", path=Path("/models/jeff.safetensors")))
    assert 'data-copy="&lt;lora:jeff:0.8&gt;"' in html
    assert "/models/jeff.safetensors" in html
    assert 'data-live="0"' in html


def test_a_failed_run_says_what_to_do():
    html = show_status(Status(state="failed", error="The disk is full.", hint="Make room."))
    assert "The disk is full." in html
    assert "Make room." in html


def test_problems_are_listed_by_the_labels_of_their_fields():
    html = show_status(Status(state="failed", problems={"output_name": "is taken", "unknown": "is odd"}))
    assert "<li>Output name: is taken</li>" in html
    assert "<li>unknown: is odd</li>" in html


def test_no_text_of_a_person_becomes_html():
    evil = "<img src=x onerror=alert(1)>"
    status = Status(
        state="failed", name=evil, phase=evil, notices=(evil,) * 5, error=evil, hint=evil, tag=evil, path=Path(evil)
    )
    assert "<img" not in show_status(status)


def test_test_pictures_are_shown_newest_first_and_fetched_by_the_script():
    samples = tuple(Sampled(Path(f"/runs/step{step:08d}-1.png"), step, 'a "cat"') for step in (200, 400))
    html = show_status(replace(TRAINING, id="the-run", samples=samples))
    assert 'data-src="jobs/the-run/samples/step00000200-1.png"' in html
    assert html.index("step 400<") < html.index("step 200<")
    assert "a &quot;cat&quot;" in html and "/runs" not in html


def test_waiting_runs_and_the_step_to_resume_from_are_told():
    html = show_status(replace(TRAINING, kept_step=400, queue=(Queued("x", "anna"), Queued("y", "<b>"))))
    assert "resumable from step 400" in html
    assert "<code>anna</code>, <code>&lt;b&gt;</code>" in html


def test_parts_stand_for_themselves():
    parts = show_parts(TRAINING)
    assert tuple(parts) == PARTS == tuple(show_parts(Status()))
    whole = show_status(TRAINING)
    assert all(f'<div data-part="{name}">{html}</div>' in whole for name, html in parts.items())


def test_the_buttons_are_set_anew_when_something_they_depend_on_changes():
    states = [TRAINING, replace(TRAINING, state="paused"), replace(TRAINING, stopping=True), replace(TRAINING, id="b")]
    states += [replace(TRAINING, step=0), replace(TRAINING, queue=(Queued("x", "anna"),))]
    assert len({buttons_of(status) for status in states}) == len(states)
    assert buttons_of(TRAINING) == buttons_of(replace(TRAINING, step=413, loss=0.2))


def test_old_notices_are_folded():
    html = show_status(Status(state="training", notices=tuple(f"notice {number}" for number in range(10))))
    assert "7 earlier" in html
    assert html.index("notice 6") < html.index("</details>") < html.index("notice 7")


def test_paces_and_durations_are_said_as_people_do():
    assert [show_pace(value) for value in (0.0, 0.5, 2.44)] == ["", "2.0 it/s", "2.4 s/it"]
    assert [show_duration(value) for value in (40, 90, 3599, 7500)] == ["40 s", "2 min", "1 h 00 min", "2 h 05 min"]


def test_a_curve_needs_two_points():
    assert draw_curve([]) == draw_curve([(1, 0.5)]) == ""


def test_a_curve_shows_raw_and_smoothed_losses_inside_its_frame():
    svg = draw_curve([(number, 0.1 + 0.01 * (number % 3)) for number in range(1, 100)])
    raw, smoothed = (re.search(f'class="{kind}" points="([^"]+)"', svg)[1].split() for kind in ("raw", "smooth"))
    assert len(raw) == len(smoothed) == 99

    def spread(points):
        heights = [float(point.split(",")[1]) for point in points[20:]]
        return max(heights) - min(heights)

    assert spread(smoothed) < spread(raw) / 3
    assert "step 99" in svg


def test_a_curve_holds_what_the_pointer_is_to_say():
    losses, rates = [(1, 0.2), (2, 0.1), (3, 0.3)], [(1, 1e-4), (2, 2e-4), (3, 1e-4)]
    svg = draw_curve(losses, rates)
    points = json.loads(re.search("data-points='([^']+)'", svg)[1])
    assert [(step, loss, rate) for step, loss, _, rate in points] == [(1, 0.2, 1e-4), (2, 0.1, 2e-4), (3, 0.3, 1e-4)]
    assert svg.count("<polyline") == 3 and "2.00e-04" in svg
    assert draw_curve(losses).count("<polyline") == 2


def test_equal_losses_do_not_divide_by_zero():
    assert "nan" not in draw_curve([(1, 0.5), (2, 0.5)])
    assert "nan" not in draw_curve([(1, 0.0), (2, 0.0)])


def test_smoothing_starts_at_the_first_loss_and_keeps_a_constant():
    assert smooth([(1, 0.7), (2, 0.7), (3, 0.7)]) == [(n, pytest.approx(0.7)) for n in (1, 2, 3)]


def test_thinning_keeps_the_newest_point():
    points = [(number, 0.0) for number in range(1, 2001)]
    assert len(thin(points)) <= DRAWN_POINTS
    assert thin(points)[-1] == points[-1]
    assert list(thin(points[:5])) == points[:5]
