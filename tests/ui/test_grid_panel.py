"""Step 4: what its inputs ask for, how a grid is watched, and what choosing a picture does."""

from __future__ import annotations

import json
import re
import threading
from dataclasses import replace

import pytest

pytest.importorskip("gradio")

import gradio as gr

from lib_trainer.config.recipe import Recipe
from lib_trainer.models.families import SDXL
from lib_trainer.preview.grid_request import PAIR, STEPS, STRENGTHS
from lib_trainer.ui.grid_actions import REMEMBERED
from lib_trainer.ui.last_settings import read_settings
from lib_trainer.ui.lora_choices import name_of
from lib_trainer.ui.proposals import Proposed
from lib_trainer.ui.tab import build
from tests.ui.fakes import SlowRun, draw_pictures
from tests.ui.grid_room import REQUEST, Room
from tests.waiting import PATIENCE_S, until


@pytest.fixture
def room(tmp_path) -> Room:
    return Room(tmp_path)


def test_strengths_across_prompts_down(room):
    assert room.made() == [
        "jeff as a hero", "jeff as a hero <lora:jeff:0.5>", "jeff as a hero <lora:jeff:1>",
        "a cat", "a cat <lora:jeff:0.5>", "a cat <lora:jeff:1>",
    ]  # fmt: skip
    request = room.host.requests[0]
    assert (request.negative_prompt, request.width_px, request.height_px, request.steps) == ("blurry", 512, 512, 8)
    assert (request.cfg_scale, request.sampler, request.scheduler, request.seed) == (5.5, "DDIM", "Karras", 7)


def test_saved_steps_down(room):
    prompts = room.made(mode=STEPS, prompt="p <lora:jeff:0.8>", strengths="1")
    assert prompts == ["p <lora:jeff-000001:1>", "p <lora:jeff-000002:1>", "p <lora:jeff:1>"]


def test_two_loras_three_by_two(room):
    prompts = room.made(mode=PAIR, other="oil", prompt="p")
    assert prompts[0] == "p <lora:oil:0.4>"
    assert prompts[-1] == "p <lora:jeff:1> <lora:oil:0.8>"
    assert len(prompts) == 6


def test_without_a_choice_the_lora_of_the_prompt_is_meant(room):
    assert room.made(lora=None, prompt="p <lora:oil:0.8> q", strengths="0,1") == ["p q", "p <lora:oil:1> q"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lora": None}, "Choose a LoRA first"),
        ({"prompt": " \n"}, "There is no prompt"),
        ({"width": None}, "number is missing"),
        ({"strengths": "strong"}, "not a strength"),
        ({"seeds": "-1"}, "not a seed"),
        ({"mode": PAIR}, "Choose the LoRA beside it"),
        ({"mode": PAIR, "other": "jeff"}, "with itself"),
        ({"mode": STEPS, "lora": "oil"}, "no saved steps of oil"),
        ({"prompt": "p <lora:jef:1>"}, "no LoRA named jef"),
    ],
)
def test_what_cannot_be_drawn_is_said_before_the_host_is_asked(room, changes, said):
    message, _ = room.start(**changes)
    assert said in message
    assert room.grid_job.grid_status().state == "idle"


def test_a_lora_for_other_models_is_marked_and_refused(room):
    room.card("oil", {"sd version": "SDXL"})
    lora, _ = room.actions.list_loras("jeff", None)
    line = next(line for line in lora["choices"] if name_of(line) == "oil")
    # No-break spaces look like others.
    assert line.replace("\u00a0", " ") == "⚠ oil · SDXL, does not fit the checkpoint"
    assert name_of(lora["value"]) == "jeff"
    assert "made for SDXL" in room.start(lora=line)[0]
    assert "made for SDXL" in room.start(lora="oil")[0]
    room.host.family = SDXL
    lines = room.actions.list_loras(None, None)[0]["choices"]
    assert "oil · SDXL" in [line.replace("\u00a0", " ") for line in lines]
    # What was chosen stays chosen, although its line says something else now.
    assert room.actions.list_loras(line, None)[0]["value"] in lines


def test_pictures_appear_one_by_one_and_are_sent_once(room):
    room.host.gate = threading.Semaphore(0)
    message, html = room.start()
    assert (message, html.count("<img"), html.count('class="missing"')) == ("", 0, 6)
    assert 'data-live="1"' in html
    seen, *_ = room.actions.show(-1)
    room.host.gate.release(2)
    until(lambda: len(room.grid_job.grid_status().drawn) == 2)
    seen, html, grid, stop, heartbeat = room.actions.show(seen)
    assert (html.count("<img"), html.count("Δ")) == (2, 2)
    assert "2 of 6 pictures" in html
    assert (grid["interactive"], stop["interactive"]) == (False, True)
    again = room.actions.show(seen)
    assert "value" not in again[1]
    assert again[-1] != heartbeat
    _, html, _, stop, _ = room.actions.stop(seen)
    assert "Stopping after this picture" in html
    assert not stop["interactive"]
    room.host.gate.release(9)
    room.grid_job.wait(PATIENCE_S)
    _, html, grid, stop, _ = room.actions.show(seen)
    assert "Stopped" in html and "Saved as" in html and 'data-live="0"' in html
    assert html.count("<img") == 3
    assert (grid["interactive"], stop["interactive"]) == (True, False)


def test_the_next_grid_shows_its_own_pictures(room):
    shown = []
    for seed in "78":
        room.made(seeds=seed)
        html = room.actions.show(-1)[1]
        # By this a click says which grid it means.
        assert f'data-cell="{len(shown) + 1} 1 2"' in html
        shown.append(re.findall('<img alt="" src="([^"]+)"', html))
    assert len(shown[0]) == len(shown[1]) == 6 and not set(shown[0]) & set(shown[1])


def test_names_and_prompts_cannot_break_the_page(room):
    room.made(prompt='<b>"bold"</b>', strengths="1")
    html = room.actions.show(-1)[1]
    assert "<b>&quot;" not in html and "&lt;b&gt;" in html
    assert '<b>"bold"' not in html


def test_a_clicked_picture_shows_its_prompt(room):
    room.made()
    group, picture, about, infotext, choose, _ = room.actions.open_cell("1 1 2")
    assert group["visible"]
    assert picture.size == (512, 512)
    assert infotext.startswith("a cat <lora:jeff:1>\nSteps: 8")
    assert "jeff 1 · seed 7 · Δ" in about
    assert choose["interactive"]
    assert not room.actions.open_cell("1 0 0")[4]["interactive"], "there is nothing to choose without the LoRA"
    for nothing in ("", "9 9", "x y", "1"):
        assert not room.actions.open_cell(nothing)[0]["visible"]
    assert room.actions.send("1 1 1") == "a cat <lora:jeff:0.5>"


def test_choosing_puts_strength_and_picture_on_the_card(room):
    room.made()
    assert "strength 0.5" in room.actions.choose("1 0 1")
    card = json.loads((room.host.lora_dir / "jeff.json").read_text(encoding="utf-8"))
    assert card["preferred weight"] == 0.5
    assert (room.host.lora_dir / "jeff.png").exists()
    assert room.host.changed
    assert "not in this picture" in room.actions.choose("1 0 0")
    assert "replaced this picture" in room.actions.choose("1 7 7")


def test_the_last_settings_and_prompts_come_back(room):
    room.card("jeff", {"activation text": "jeff_word"})
    room.made(strengths="0,1", negative="ugly")
    assert read_settings(room.host.settings_file)["try"]["negative"] == "ugly"
    opened = room.actions.open_page()
    kept = dict(zip(REMEMBERED, opened[4:], strict=False))
    assert kept["strengths"]["value"] == "0,1"
    assert (kept["sampler"]["value"], kept["sampler"]["choices"]) == ("DDIM", ["Euler", "DDIM"])
    assert opened[2]["value"] == 64
    assert json.loads((room.host.lora_dir / "jeff.json").read_text(encoding="utf-8"))["test prompts"] == [
        "jeff as a hero", "a cat",
    ]  # fmt: skip
    assert not (room.host.lora_dir / "jeff-000001.json").exists()
    _, prompt, proposed, *_ = room.actions.offer(STRENGTHS, "jeff", None, "", Proposed())
    assert prompt == "jeff as a hero\na cat"
    assert proposed.prompt == prompt


def test_prompts_are_offered_until_the_person_writes_their_own(room):
    row, prompt, proposed, *_ = room.actions.offer(STRENGTHS, "oil", None, "", Proposed(output_name="jeff"))
    assert not row["visible"]
    assert prompt.splitlines()[0] == "cat in oil_style style <lora:oil:0.6>"
    row, prompt, proposed, *_ = room.actions.offer(PAIR, "jeff", "oil", prompt, proposed)
    assert row["visible"]
    assert prompt == "portrait of <lora:jeff:0.8> in oil_style <lora:oil:0.6> style"
    for kept in ("mine", proposed.prompt):
        again = room.actions.offer(PAIR, "jeff", "oil", kept, proposed)[1]
        assert again == gr.update(), "sent back, it would overwrite what is typed meanwhile"


def test_a_face_that_was_trained_over_a_style_is_shown_with_it_by_one_click(room, monkeypatch):
    over = (("gone", 1.0), ("oil", 0.7))
    listed = [replace(item, trained_over=over if item.name == "jeff" else ()) for item in room.host.loras()]
    monkeypatch.setattr(room.host, "loras", lambda **_options: listed)
    usual, pair = "0 · 0.5 · 0.7 · 0.85 · 1", "0.4 · 0.6 · 0.8"
    row, prompt, _, strengths, other, across = room.actions.offer(PAIR, "jeff", None, "", Proposed(), usual, pair)
    assert row["visible"] and prompt == "portrait of <lora:jeff:0.8> in oil_style <lora:oil:0.6> style"
    assert [name_of(other["value"]), strengths["value"], across["value"]] == ["oil", "0 · 0.8", "0 · 0.7"]
    drawn = room.made(mode=PAIR, other="oil", prompt="p", strengths=strengths["value"], other_strengths=across["value"])
    assert drawn == ["p", "p <lora:oil:0.7>", "p <lora:jeff:0.8>", "p <lora:jeff:0.8> <lora:oil:0.7>"]
    # What a person has chosen or written stays.
    chosen = room.actions.offer(PAIR, "jeff", "jeff-000001", "", Proposed(), usual, pair)
    assert chosen[3:] == [gr.update()] * 3
    assert room.actions.offer(PAIR, "jeff", None, "", Proposed(), "0, 3", "1")[3::2] == [gr.update()] * 2
    # A call over REST need not name it.
    assert room.made(mode=PAIR, other="", prompt="q", strengths="1", other_strengths="1")[-1] == (
        "q <lora:jeff:1> <lora:oil:1>"
    )


def test_a_slider_is_shown_both_ways_until_the_person_writes_strengths(room, monkeypatch):
    listed = [replace(item, two_way=item.name == "oil") for item in room.host.loras()]
    monkeypatch.setattr(room.host, "loras", lambda **_options: listed)
    usual, both = "0 · 0.5 · 0.7 · 0.85 · 1", "-2 · -1 · 0 · 1 · 2"
    assert room.actions.offer(STRENGTHS, "oil", None, "mine", Proposed(), usual)[3] == gr.update(value=both)
    assert room.actions.offer(STRENGTHS, "jeff", None, "mine", Proposed(), both)[3] == gr.update(value=usual)
    assert room.actions.offer(STRENGTHS, "oil", None, "mine", Proposed(), "0, 3")[3] == gr.update()
    assert room.actions.reload("oil", None, "mine", Proposed(), usual)[2] == gr.update(value=both)
    drawn = room.made(lora="oil", prompt="a cat", strengths="")
    assert sorted(drawn) == sorted(["a cat", *(f"a cat <lora:oil:{strength}>" for strength in (-2, -1, 1, 2))])


def test_choose_this_one_means_the_grid_that_the_page_shows(room):
    room.made(lora="jeff", strengths="0, 0.5")
    room.start(lora="oil", strengths="0, 0.7")
    room.grid_job.wait(PATIENCE_S)
    # A page that still shows the first grid sends its number.
    assert "replaced" in room.actions.choose("1 0 1")
    assert not room.actions.open_cell("1 0 1")[0]["visible"]
    assert room.actions.send("1 0 1") == gr.update()
    assert "card of oil proposes strength 0.7" in room.actions.choose("2 0 1")
    assert room.actions.start(-1, *vars(REQUEST).values())[1]["visible"] is False, "the picture of the grid before"


def test_after_a_run_its_lora_is_in_the_list(room):
    room.host.put("anna")
    lora, other, _ = room.actions.reload(None, "oil", "p <lora:anna:0.8>", Proposed())
    assert (name_of(lora["value"]), name_of(other["value"])) == ("anna", "oil")
    prompt = "p <lora:anna:0.8>"
    assert name_of(room.actions.reload("jeff", None, prompt, Proposed())[0]["value"]) == "jeff", "a choice of theirs"


def test_after_a_second_run_the_list_follows_to_its_file(room):
    room.host.put("anna")
    second = Proposed(prompt="p <lora:anna:0.8>")
    assert name_of(room.actions.reload("jeff", None, second.prompt, second)[0]["value"]) == "anna"
    unmade = Proposed(prompt="p <lora:ben:0.8>")
    assert name_of(room.actions.reload("jeff", None, unmade.prompt, unmade)[0]["value"]) == "jeff"


def test_nothing_is_drawn_during_a_run(tmp_path):
    room = Room(tmp_path, SlowRun(steps=1000, seconds=0.01))
    folder = str(draw_pictures(tmp_path / "pictures", count=2, side_px=64))
    room.jobs.start(Recipe().with_values({"train_data_dir": folder, "output_name": "new"}))
    update, message = room.actions.generate_picture(*vars(REQUEST).values())
    assert update["value"] is None
    assert "being trained on" in message
    assert "being trained on" in room.start()[0]
    room.jobs.stop(save=False)
    room.jobs.wait(PATIENCE_S)


def test_a_single_picture_of_the_first_prompt(room):
    update, message = room.actions.generate_picture(*vars(replace(REQUEST, lora="oil")).values())
    assert (update["value"].size, message) == ((512, 512), "")
    assert room.host.requests[0].prompt == "jeff as a hero <lora:oil:0.6>"
    room.actions.generate_picture(*vars(replace(REQUEST, lora="oil", prompt="x <lora:oil:1>")).values())
    assert room.host.requests[1].prompt == "x <lora:oil:1>"


def test_an_interrupted_picture_is_said(room):
    room.host.interrupt = True
    update, message = room.actions.generate_picture(*vars(REQUEST).values())
    assert update["value"] is None
    assert "interrupted" in message


def test_the_send_button_is_handed_to_the_host(room):
    build(room.host, room.jobs)
    button, infotext = room.host.sends[0]
    assert (button.value, infotext.label) == ("Send to txt2img", "Prompt and settings")
    assert isinstance(button, gr.Button)
