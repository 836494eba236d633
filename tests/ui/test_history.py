"""Past runs in the tab."""

from __future__ import annotations

import pytest

from lib_trainer.app import default_run

pytest.importorskip("gradio")

from lib_trainer.dataset.edits import PictureEdit, change_edits, read_edits
from lib_trainer.events import Finished, Started
from lib_trainer.host.access import Access
from lib_trainer.jobs.queue import Jobs
from lib_trainer.ui.history_panel import HistoryActions
from lib_trainer.ui.proposals import Proposed
from lib_trainer.ui.train_panel import LiveView
from tests.jobs.runs import evaluated_at, events_run, step, unfinished_run
from tests.ui.fakes import FakeHost, SlowRun, draw_pictures
from tests.ui.tab_page import Page
from tests.waiting import PATIENCE_S


def lines(page: Page) -> list[str]:
    return page.actions.history.list_runs()[0]["choices"]


def test_a_past_run_is_listed_shown_and_used_again(page, pictures):
    page.train(train_data_dir=pictures, network_dim=12)
    page.jobs.wait(PATIENCE_S)
    line = lines(page)[0]
    assert line.startswith("jeff_person · done · 3 steps · ")
    shown = page.actions.history.show_past(line)
    assert "<polyline" in shown and "jeff_person.safetensors" in shown and "Network rank (dim) 12" in shown
    preset, notices, _, _, _, *updates = page.actions.use_run(line, "face", "", Proposed(), *page.values.values())
    fields = dict(zip(page.form.inputs, updates, strict=False))
    assert (preset, fields["network_dim"]["value"], fields["train_data_dir"]["value"]) == (None, 12, pictures)
    assert "jeff_person" in notices
    choice, shown, *_ = page.actions.history.remove(line)
    assert choice["choices"] == [] and shown == ""


def test_a_stopped_run_is_resumed(tmp_path, pictures):
    tab = Page(tmp_path, SlowRun(steps=1000, seconds=0.01))
    tab.train(train_data_dir=pictures)
    tab.jobs.stop(save=False)
    tab.jobs.wait(PATIENCE_S)
    line = lines(tab)[0]
    assert "stopped" in line and "from the start" in tab.actions.history.show_past(line)
    choice, *_ = tab.actions.history.resume(line)
    assert tab.jobs.status().live and choice["value"].endswith(tab.jobs.status().id)
    refused = tab.actions.history.remove(choice["value"])
    assert "still going" in refused[1]
    tab.jobs.stop(save=False)
    tab.jobs.wait(PATIENCE_S)


def test_a_run_that_has_not_learned_goes_on_with_a_click(tmp_path, pictures):
    tab = Page(tmp_path, unfinished_run)
    tab.train(train_data_dir=pictures)
    tab.jobs.wait(PATIENCE_S)
    more = tab.actions.live.show()[-4]
    assert {"visible": True, "value": "Train 5 more steps"}.items() <= more.items()
    assert "from step 3 to step 8" in tab.actions.history.show_past(lines(tab)[0])
    message, *_ = tab.actions.history.train_more()
    assert message == "" and tab.jobs.wait(PATIENCE_S).step == 8
    assert {"visible": False}.items() <= tab.actions.live.show()[-4].items()


def test_pictures_unlike_the_others_are_left_out_of_the_next_run_with_a_click(tmp_path):
    folder = draw_pictures(tmp_path / "faces", 4, side_px=128) / "10_jeff_person"
    crop = (0.0, 0.0, 0.5, 1.0)
    change_edits(folder, {"2.jpg": PictureEdit(crop=crop)})
    odd = {"unlearned": ("10_jeff_person/2.jpg",), "at_once": ("10_jeff_person/0.jpg", "10_jeff_person/gone.jpg")}
    run = events_run(
        Started(0, 1, "", ""), step(1, 1), evaluated_at(1, **odd), Finished(tmp_path / "a.safetensors", "", 1)
    )
    tab = Page(tmp_path, run)
    assert tab.actions.live.show()[7]["visible"] is False
    tab.train(train_data_dir=str(folder.parent))
    tab.jobs.wait(PATIENCE_S)
    offered = tab.actions.live.show()[7]
    assert offered["visible"] and offered["value"] == [*odd["unlearned"], *odd["at_once"]]
    said = tab.actions.history.leave_out([*offered["value"], "10_jeff_person/1.jpg", "../../elsewhere.jpg"])
    assert "2.jpg, 10_jeff_person/0.jpg will be left out" in said and "1 not found" in said
    assert read_edits(folder).pictures == {
        "0.jpg": PictureEdit(excluded=True), "2.jpg": PictureEdit(excluded=True, crop=crop),
    }  # fmt: skip


def test_a_past_run_that_has_not_learned_is_resumed_to_more_steps(tmp_path, pictures):
    tab = Page(tmp_path, unfinished_run)
    tab.train(train_data_dir=pictures)
    tab.jobs.wait(PATIENCE_S)
    tab.actions.history.resume(lines(tab)[0])
    assert tab.jobs.wait(PATIENCE_S).step == 8


def test_the_report_is_shown_and_two_runs_stand_side_by_side(tmp_path, pictures):
    tab = Page(tmp_path, unfinished_run)
    for name in ("jeff", "anna"):
        tab.train(train_data_dir=pictures, output_name=name)
        tab.jobs.wait(PATIENCE_S)
    anna, jeff = lines(tab)
    alone = tab.actions.history.show_past(jeff)
    assert "<summary>Report</summary>" in alone and "Over strength, at step 3" in alone
    both = tab.actions.history.show_past(jeff, anna)
    assert "train-lora-two-runs" in both and both.index("<b>jeff</b>") < both.index("<b>anna</b>")
    assert tab.actions.history.show_past(jeff, jeff) == alone
    choice, shown, beside = tab.actions.history.list_runs(jeff, anna)
    assert (choice["value"], beside["value"], shown) == (jeff, anna, both)


def test_a_run_that_waits_is_taken_out_of_the_queue(tmp_path, pictures):
    tab = Page(tmp_path, SlowRun(steps=1000, seconds=0.01))
    tab.train(train_data_dir=pictures)
    tab.train(train_data_dir=pictures, output_name="anna")
    assert [waiting.name for waiting in tab.jobs.status().queue] == ["anna"]
    tab.actions.history.remove(next(line for line in lines(tab) if line.startswith("anna")))
    assert tab.jobs.status().queue == ()
    tab.jobs.stop(save=False)
    tab.jobs.wait(PATIENCE_S)


def test_a_run_is_not_resumed_on_what_is_no_longer_allowed(tmp_path, pictures):
    weights = tmp_path / "elsewhere" / "style.safetensors"
    tab = Page(tmp_path, unfinished_run)
    for values in ({"train_data_dir": pictures}, {"train_data_dir": pictures, "base_weights": str(weights)}):
        tab.train(**values)
        tab.jobs.wait(PATIENCE_S)
    live, runs = LiveView(tab.jobs), len(lines(tab))
    for folders in ((tmp_path / "elsewhere",), (tmp_path / "pictures",)):
        # Now the program is reached from other machines.
        history = HistoryActions(tab.jobs, live, Access(local_only=False, folders=folders))
        assert "outside the folders" in history.resume(lines(tab)[0])[1]
        assert "outside the folders" in history.train_more()[0]
    assert len(lines(tab)) == runs and not tab.jobs.status().live
    # The first run names no LoRA.
    assert "outside the folders" not in history.resume(lines(tab)[1])[1]
    tab.jobs.wait(PATIENCE_S)


@pytest.mark.parametrize("chosen", [None, "", "jeff · done · 20260101-000000-abcdef"])
def test_without_a_run_a_sentence(tmp_path, chosen):
    jobs = Jobs(FakeHost(tmp_path), default_run)
    history = HistoryActions(jobs, LiveView(jobs), Access())
    assert "No run is chosen." in history.show_past(chosen)
    assert "No run is chosen." in history.resume(chosen)[1]
    assert "No run is chosen." in history.remove(chosen)[1]
