"""The tab: what its buttons do, and that gradio takes it."""

from __future__ import annotations

import os
from inspect import signature
from pathlib import Path

import pytest
from PIL import Image

from lib_trainer.app import default_run

pytest.importorskip("gradio")

import gradio as gr

import lib_trainer.app as webui
from lib_trainer.errors import UserError
from lib_trainer.host.access import Access
from lib_trainer.jobs.queue import Jobs
from lib_trainer.ui.grid_panel import propose_prompt
from lib_trainer.ui.proposals import Proposed
from lib_trainer.ui.recipe_check import name_from
from lib_trainer.ui.recipe_panel import show_length
from lib_trainer.ui.standalone_page import build_page
from lib_trainer.ui.tab import build
from tests.ui.fakes import FakeHost, SlowRun
from tests.ui.tab_page import Page
from tests.waiting import PATIENCE_S, until


def component_ids(config):
    return {component["props"].get("elem_id") for component in config["components"]}


def test_gradio_takes_the_tab_alone_and_inside_a_webui(tmp_path):
    host = FakeHost(tmp_path)
    tab = build(host, Jobs(host, default_run))
    with gr.Blocks() as outer, gr.Tabs(), gr.TabItem("Train LoRA"):
        tab.render()
    ids = component_ids(outer.get_config_file())
    buttons = ("train", "pause", "stop_save", "stop", "refresh", "scan", "generate_picture", "reset")
    assert {f"train_lora_{name}" for name in (*buttons, "status", "heartbeat", "gallery", "output_name")} <= ids


@pytest.mark.skipif("head" not in signature(gr.Blocks).parameters, reason="a page of its own needs gradio 4")
def test_a_page_of_its_own_brings_style_and_script(tmp_path):
    host = FakeHost(tmp_path)
    page = build_page(host, Jobs(host, default_run), Access())
    assert "train_lora_refresh" in page.head
    assert "train-lora-card" in page.css
    ids = [component["props"].get("elem_id") for component in page.get_config_file()["components"]]
    assert ids.count("train_lora_train") == 1


def test_scanning_shows_the_pictures_and_proposes_trigger_word_name_and_prompt(page, pictures):
    seen = page.scan(train_data_dir=pictures)
    assert seen["pictures"] == 40
    assert "4 pictures, 10× each: 40 in an epoch" in seen["gallery"]
    assert seen["gallery"].count("data:image/jpeg") == 4
    assert "2 below 768 px" in seen["gallery"]
    assert "1 without a caption" in seen["gallery"]
    assert (seen["trigger_word"], seen["name"]["value"]) == ("jeff_person", "jeff_person")
    assert seen["prompt"].splitlines()[0] == "jeff_person as a superhero <lora:jeff_person:0.8>"


def test_scanning_keeps_what_the_person_typed(page, pictures):
    typed = {"trigger_word": "j3ff", "output_name": "my file"}
    before = Proposed(trigger_word="old", output_name="old", prompt="old prompt")
    seen = page.scan(prompt="mine", proposed=before, train_data_dir=pictures, **typed)
    assert (seen["trigger_word"], seen["name"]["value"], seen["prompt"]) == ("j3ff", "my file", "mine")


def test_scanning_names_skipped_files(page, pictures, tmp_path):
    (tmp_path / "pictures" / "10_jeff_person" / "<b>.png").write_bytes(b"no picture")
    assert "&lt;b&gt;.png is skipped" in page.scan(train_data_dir=pictures)["gallery"]


def test_hostile_names_of_files_and_folders_are_text(page, tmp_path):
    """HTML, control characters, and bytes that are no text in any encoding: Linux takes them all."""
    for folder in ("1_<b>x<b>", "2_y"):
        (tmp_path / "hostile" / folder).mkdir(parents=True)
    names = ("<img src=x onerror=alert(1)>.png", os.fsdecode(b"\xff\x1b[31m.png"), "'\" onload='alert(2).png")
    for name in names:
        Image.new("RGB", (64, 64)).save(tmp_path / "hostile/1_<b>x<b>" / name)
        (tmp_path / "hostile/2_y" / name).write_bytes(b"half a picture")
    Image.new("RGB", (64, 64)).save(tmp_path / "hostile/2_y/a.png")
    html = page.scan(train_data_dir=str(tmp_path / "hostile"))["gallery"]
    html.encode()
    assert html.count("<figure") == 4 and html.count("<tr>") == 3
    assert not any(text in html for text in ("<img src=x", "<b>x", "\" onload='"))


def test_half_a_picture_is_named_and_not_counted(page, pictures, tmp_path):
    whole = page.scan(train_data_dir=pictures)["pictures"]
    picture = Image.effect_noise((64, 64), 90)
    picture.save(tmp_path / "pictures" / "10_jeff_person" / "half.jpg")
    data = (tmp_path / "pictures" / "10_jeff_person" / "half.jpg").read_bytes()
    (tmp_path / "pictures" / "10_jeff_person" / "half.jpg").write_bytes(data[: len(data) // 2])
    seen = page.scan(train_data_dir=pictures)
    assert seen["pictures"] == whole
    assert "half.jpg is skipped: " in seen["gallery"] and 'src=""' not in seen["gallery"]


def test_scanning_says_that_the_word_is_in_no_caption(page, pictures):
    gallery = page.scan(train_data_dir=pictures, trigger_word="zxq")["gallery"]
    assert "in no caption" not in gallery
    for picture in [path for path in Path(pictures).rglob("*") if path.is_file()]:
        picture.with_suffix(".txt").write_text("a man")
    assert "“zxq” is in no caption" in page.scan(train_data_dir=pictures, trigger_word="zxq")["gallery"]
    first = page.scan(train_data_dir=pictures, trigger_word="zxq", trigger_word_first=True)["gallery"]
    assert "in no caption" not in first and "zxq, a man" in first


@pytest.mark.parametrize("folder", ["", "/no/such/folder"])
def test_a_folder_that_cannot_be_used_is_said_beside_its_field(page, folder):
    seen = page.scan(train_data_dir=folder)
    assert seen["folder"]["info"].startswith("⚠")
    assert seen["pictures"] == 0


def test_a_folder_and_a_button_are_enough(page, pictures):
    message, fields = page.train(train_data_dir=pictures)
    assert message == ""
    assert fields["output_name"]["value"] == "jeff_person"
    assert page.jobs.wait(PATIENCE_S).state == "done"


def test_what_is_wrong_is_said_beside_its_field_before_the_host_is_touched(page):
    message, fields = page.train(train_data_dir="/no/such/folder", output_name="a/b", network_dim=0)
    wrong = {name for name, update in fields.items() if "⚠" in update.get("info", "")}
    assert wrong == {"train_data_dir", "output_name", "network_dim"}
    assert "Not started." in message
    assert page.jobs.status().state == "idle"


def test_training_twice_is_refused_with_a_sentence(tmp_path, pictures):
    page = Page(tmp_path, SlowRun(steps=1000, seconds=0.01))
    page.train(train_data_dir=pictures)
    message, _ = page.train(train_data_dir=pictures)
    assert "jeff_person is still being trained." in message
    page.jobs.stop(save=False)
    page.jobs.wait(PATIENCE_S)


def test_the_buttons_follow_the_run(tmp_path, pictures):
    page = Page(tmp_path, SlowRun(steps=1000, seconds=0.01))

    def buttons(updates):
        return [update.get("interactive") for update in updates[1:5]], updates[2]["value"]

    assert buttons(page.actions.live.show()) == ([None, False, False, False], "Pause")
    assert page.actions.live.show()[1]["value"] == "Train"
    page.train(train_data_dir=pictures)
    until(lambda: page.jobs.status().state == "training")
    assert buttons(page.actions.live.show()) == ([None, True, True, True], "Pause")
    assert page.actions.live.show()[1]["value"] == "Train next"
    assert buttons(page.actions.live.pause())[1] == "Resume"
    assert buttons(page.actions.live.pause())[1] == "Pause"
    assert buttons(page.actions.live.stop_save())[0] == [None, False, False, False]
    assert page.jobs.wait(PATIENCE_S).tag == "<lora:jeff_person:0.8>"


def test_every_answer_carries_a_new_heartbeat(page):
    assert page.actions.live.show()[-1] != page.actions.live.show()[-1]


def test_prompts_and_names_are_proposed_from_the_word():
    assert propose_prompt("style", "oil_paint", "oil", 1.0).splitlines()[0] == "cat in oil_paint style <lora:oil:1>"
    assert propose_prompt("face", "jeff", "", 0.8) == ""
    assert name_from(" jeff: person/1. ") == "jeff_person_1"


def test_it_is_said_how_long_a_run_is():
    values = {"max_train_steps": 0, "epoch": 10, "train_batch_size": 2, "gradient_accumulation_steps": 1}
    assert "200 steps: 10 epochs of 40 pictures, 2 in a step" in show_length(40, values)
    assert "100 steps: 5 epochs of 40 pictures" in show_length(40, {**values, "max_train_steps": 100})
    assert show_length(0, values) == show_length(40, {**values, "epoch": None}) == ""


def test_a_webui_that_is_not_supported_gets_a_tab_that_says_so(monkeypatch):
    def no_host():
        raise UserError("Training does not work in this WebUI yet.", "Use another.")

    monkeypatch.setattr(webui, "host_and_jobs", no_host)
    blocks, label, tab_id = webui.make_tab()
    assert (label, tab_id) == ("Train LoRA", "train_lora")
    shown = [str(getattr(block, "value", "")) for block in blocks.blocks.values()]
    assert any("does not work in this WebUI" in text for text in shown)


def test_reloading_the_ui_finds_the_same_jobs(monkeypatch, tmp_path):
    monkeypatch.setattr(webui, "current_host", lambda: FakeHost(tmp_path))
    webui.host_and_jobs.cache_clear()
    try:
        assert webui.host_and_jobs()[1] is webui.host_and_jobs()[1]
    finally:
        webui.host_and_jobs.cache_clear()
