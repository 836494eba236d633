"""Nothing is lost to a name: proposals follow the folder, files are replaced and runs stopped after a yes."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from unittest import mock

import pytest

pytest.importorskip("gradio")

import gradio as gr

from lib_trainer.host.access import Access
from lib_trainer.jobs.status import Status
from lib_trainer.ui.form import WRONG
from lib_trainer.ui.last_settings import read_settings, write_settings
from lib_trainer.ui.proposals import Proposed
from lib_trainer.ui.recipe_panel import preset_for
from tests.ui.fakes import SlowRun, draw_pictures
from tests.ui.tab_page import Page
from tests.waiting import PATIENCE_S, until


def test_what_the_page_proposed_follows_the_folder(page, pictures, tmp_path):
    seen = page.scan(train_data_dir=pictures)
    styles = tmp_path / "styles"
    shutil.copytree(f"{pictures}/10_jeff_person", styles / "30_oil_paint")
    filled = {"trigger_word": seen["trigger_word"], "output_name": seen["name"]["value"]}
    then = page.scan(prompt=seen["prompt"], proposed=seen["proposed"], train_data_dir=str(styles), **filled)
    assert (then["trigger_word"], then["name"]["value"]) == ("oil_paint", "oil_paint")
    assert "oil_paint" in then["prompt"] and "jeff_person" not in then["prompt"]
    # Nobody need press Scan: Train asks the folder as well.
    message, fields, *_ = page.press("train", proposed=seen["proposed"], train_data_dir=str(styles), **filled)
    assert message == "" and page.jobs.wait(PATIENCE_S).name == "oil_paint"
    assert (fields["trigger_word"]["value"], fields["output_name"]["value"]) == ("oil_paint", "oil_paint")


def test_a_folder_that_names_nothing_takes_back_what_the_last_one_proposed(page, pictures, tmp_path):
    seen = page.scan(train_data_dir=pictures)
    filled = {"trigger_word": seen["trigger_word"], "output_name": seen["name"]["value"]}
    plain = str(shutil.copytree(f"{pictures}/10_jeff_person", tmp_path / "plain"))
    then = page.scan(proposed=seen["proposed"], train_data_dir=plain, **filled)
    assert (then["trigger_word"], then["name"]["value"]) == ("", "")
    message, fields, *_ = page.press("train", proposed=seen["proposed"], train_data_dir=plain, **filled)
    assert "needs a name" in message and fields["trigger_word"]["value"] == fields["output_name"]["value"] == ""


def test_what_was_proposed_is_still_a_proposal_after_a_reload(page, pictures, tmp_path):
    page.train(train_data_dir=pictures)
    page.jobs.wait(PATIENCE_S)
    proposed = page.actions.open_page()[5]
    assert (proposed.trigger_word, proposed.output_name) == ("jeff_person", "jeff_person")
    page.press("replace_existing", "j3ff", train_data_dir=pictures, trigger_word="j3ff", output_name="j3ff")
    page.jobs.wait(PATIENCE_S)
    assert page.actions.open_page()[5].trigger_word == "", "the person typed it"


def test_an_existing_file_is_told_and_replaced_only_after_a_yes(page, pictures, monkeypatch):
    monkeypatch.setattr("lib_trainer.adapter.io.is_ours", lambda path: True)
    page.host.put("jeff_person")
    seen = page.scan(train_data_dir=pictures)
    assert "jeff_person.safetensors exists" in seen["name"]["info"]
    assert (
        "exists"
        in page.actions.propose("face", "", Proposed(), *{**page.values, "output_name": "jeff_person"}.values())[0][
            "info"
        ]
    )
    message, _, replace, asked, _ = page.press("train", train_data_dir=pictures)
    assert "jeff_person.safetensors exists" in message and replace["visible"] and asked == "jeff_person"
    assert "jeff_person-previous" in replace["value"]
    assert page.jobs.status().state == "idle"
    # The yes is for that file alone.
    page.host.put("anna")
    message, _, _, asked, _ = page.press("replace_existing", "jeff_person", train_data_dir=pictures, output_name="anna")
    assert "anna.safetensors exists" in message and asked == "anna"
    assert page.press("replace_existing", "jeff_person", train_data_dir=pictures)[0] == ""
    assert page.jobs.wait(PATIENCE_S).name == "jeff_person"


def test_a_question_shows_a_name_as_it_is_written(page, pictures, monkeypatch):
    monkeypatch.setattr("lib_trainer.adapter.io.is_ours", lambda path: True)
    page.host.put("a &amp b")
    message, *_ = page.press("train", train_data_dir=pictures, output_name="a &amp b")
    assert "a &amp;amp b.safetensors exists" in message


def test_a_file_of_another_program_is_never_replaced(page, pictures):
    page.host.put("jeff_person")
    message, fields, replace, *_ = page.press("replace_existing", "nothing", train_data_dir=pictures)
    assert "made by another program" in fields["output_name"]["info"] and not replace["visible"]
    assert "Not started" in message and page.jobs.status().state == "idle"


def test_a_choice_that_the_server_has_set_loads_no_recipe(page):
    """gradio 4 reports it as if a person had made it, right after the page was opened."""
    proposed = page.actions.open_page()[5]
    answer = page.actions.choose_kind("face", "", proposed, *page.values.values())
    assert not any("value" in update for update in answer if isinstance(update, dict))
    answer = page.actions.choose_kind("style", "", proposed, *page.values.values())
    assert answer[0] == preset_for("style") and answer[4].kind == "style"


def test_a_recipe_fills_in_what_nobody_typed(page, tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"network_dim": 12, "output_name": "anna", "trigger_word": "ann"}))
    values = {**page.values, "output_name": "typed", "trigger_word": "jeff"}
    before = Proposed(trigger_word="jeff")
    _, notices, _, _, proposed, *updates = page.actions.open_recipe(str(path), "face", "", before, *values.values())
    fields = dict(zip(page.form.inputs, updates, strict=False))
    assert "value" not in fields["output_name"] and "yours is kept; the file has anna" in notices
    assert fields["trigger_word"]["value"] == proposed.trigger_word == "ann"


def test_a_program_that_listens_shows_the_folders_that_it_allows_alone(tmp_path, pictures):
    page = Page(tmp_path, access=Access(local_only=False, folders=(tmp_path / "allowed",)))
    secret = tmp_path / "secret"
    for folder in (pictures, str(secret), f"'{secret}'", str(tmp_path / "allowed" / ".." / "secret")):
        said = page.scan(train_data_dir=folder)["folder"]["info"]
        assert "outside the folders" in said and "--gradio-allowed-path" in said and "the tab" not in said
        _, fields = page.train(train_data_dir=folder, trigger_word="jeff", output_name="jeff")
        assert "outside the folders" in fields["train_data_dir"]["info"]
    allowed = str(shutil.copytree(pictures, tmp_path / "allowed"))
    _, fields = page.train(train_data_dir=allowed, base_weights=f"style, {secret}/style.safetensors")
    assert "outside the folders" in fields["network_weights"]["info"]
    _, fields = page.train(train_data_dir=allowed, mode="difference", diff_target_dir=str(secret))
    assert "outside the folders" in fields["diff_target_dir"]["info"]
    _, fields = page.train(train_data_dir=allowed, reg_data_dir=str(secret))
    assert "outside the folders" in fields["reg_data_dir"]["info"]
    assert page.scan(train_data_dir=allowed)["pictures"] == 40
    assert page.train(train_data_dir=allowed)[0] == ""
    page.jobs.wait(PATIENCE_S)


def test_stop_asks_once_where_more_than_a_minute_would_be_lost(tmp_path, pictures):
    page = Page(tmp_path, SlowRun(steps=1000, seconds=0.01))
    live = page.actions.live
    page.train(train_data_dir=pictures)
    until(lambda: page.jobs.status().step > 1)
    slow = Status(state="training", step=400, kept_step=100, seconds_per_step=0.5)
    with mock.patch.object(page.jobs, "status", lambda: slow):
        question = live.stop()[-2]
        assert question["visible"] and "2 min of training are lost" in question["value"]
        assert live.show()[-2] == gr.update(), "a question that was put stays"
    assert page.jobs.status().live
    with mock.patch.object(page.jobs, "status", lambda: replace(slow, kept_step=300)):
        assert live.show()[-2]["visible"] is False, "nothing is lost that is worth a question"
    live.stop_anyway()
    assert page.jobs.wait(PATIENCE_S).state == "stopped"


def test_stop_and_save_does_not_ask(tmp_path, pictures):
    page = Page(tmp_path, SlowRun(steps=1000, seconds=0.01))
    page.train(train_data_dir=pictures)
    until(lambda: page.jobs.status().step > 1)
    assert page.jobs.status().unsaved_seconds < 60
    page.actions.live.stop_save()
    assert page.jobs.wait(PATIENCE_S).tag


def test_a_complaint_goes_when_its_field_is_right(page, pictures):
    wrong = {"train_data_dir": pictures, "output_name": "a/b", "min_bucket_reso": 512, "max_bucket_reso": 256}
    message, fields = page.train(**wrong)
    names = " ".join(name for name, update in fields.items() if WRONG in update.get("info", ""))
    assert set(names.split()) == {"output_name", "min_bucket_reso"}

    def check(**corrected):
        message, *updates = page.actions.check(names, Proposed(), *{**page.values, **wrong, **corrected}.values())
        told = dict(zip(page.form.inputs, updates, strict=True))
        return message, {name for name in told if WRONG in told[name].get("info", "")}, told

    message, wrong_now, told = check(output_name="ab")
    assert message == gr.update() and wrong_now == {"min_bucket_reso"}
    assert told["network_dim"] == gr.update(), "what does not complain is left alone"
    # What was wrong with one field is mended in another.
    assert check(output_name="ab", max_bucket_reso=1024)[:2] == ("", set())


def test_a_word_that_no_caption_holds_is_told_until_it_is_put_first(page, tmp_path):
    folder = shutil.copytree(draw_pictures(tmp_path / "of") / "10_jeff_person", tmp_path / "10_nobody")
    (folder / "0.txt").write_text("somebody", encoding="utf-8")
    for name, told in ((False, True), (True, False)):
        values = {**page.values, "train_data_dir": str(folder), "trigger_word_first": name}
        gallery, *_ = page.actions.rescan("face", "", Proposed(), *values.values())
        assert ("is in no caption" in gallery) is told
    assert page.actions.rescan("face", "", Proposed(), *page.values.values())[0] == gr.update(), "nothing to scan yet"


def test_what_other_panels_remember_stays_after_a_start(page, pictures):
    write_settings(page.host.settings_file, {"grid": {"steps": 8}})
    page.train(train_data_dir=pictures)
    assert read_settings(page.host.settings_file)["grid"] == {"steps": 8}
    assert read_settings(page.host.settings_file)["values"]["output_name"] == "jeff_person"


def test_a_checkpoints_name_cannot_break_the_page(page):
    page.host.describe = lambda: "<img src=x onerror=alert(1)>.safetensors"
    head = page.actions.open_page()[0]
    assert "<img" not in head and "&lt;img" in head


def test_a_slider_needs_no_folder_and_is_called_as_where_it_goes(page):
    values = {"mode": "slider", "train_data_dir": "", "output_name": "", "max_train_steps": 0}
    _, fields = page.train(**values)
    assert "⚠" in fields["original_prompt"]["info"] and "⚠" in fields["max_train_steps"]["info"]
    assert "⚠" not in fields["train_data_dir"]["info"]
    message, fields = page.train(**{**values, "target_prompt": "a happy cat", "max_train_steps": 1})
    assert message == "" and fields["output_name"]["value"] == "a_happy_cat"
    page.jobs.wait(PATIENCE_S)


def test_pairs_that_do_not_fit_are_told_beside_their_folder(page, pictures, tmp_path):
    (tmp_path / "others").mkdir()
    _, fields = page.train(train_data_dir=pictures, mode="difference", diff_target_dir=str(tmp_path / "others"))
    assert "no pictures" in fields["diff_target_dir"]["info"].lower()


def test_a_name_that_cannot_be_used_is_complained_of_at_once(page) -> None:
    """As Train does, whichever of the two answers first."""
    for name, wrong in (("a/b", True), ("jeff", False), ("", False)):
        update = page.actions.propose("face", "", Proposed(), *{**page.values, "output_name": name}.values())[0]
        assert update["info"].startswith(WRONG) == wrong
