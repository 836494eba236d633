"""Recipes and last settings: what fills the page in, and where mistakes stand."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("gradio")

from lib_trainer.ui.form import WRONG
from lib_trainer.ui.proposals import Proposed
from lib_trainer.ui.recipe_panel import preset_for
from lib_trainer.ui.settings_panel import read_base, show_base
from lib_trainer.ui.starting_point import starting_point
from lib_trainer.ui.tab import build
from tests.waiting import PATIENCE_S


def test_the_last_settings_come_back(page, pictures):
    page.train(train_data_dir=pictures, network_dim=20, resolution_px="640x512")
    page.jobs.wait(PATIENCE_S)
    start = starting_point(page.host.settings_file)
    assert (start.kind, start.values["network_dim"], start.values["resolution_px"]) == ("face", 20, [640, 512])
    head, _, _, _, prompt, _, *updates = page.actions.open_page()
    fields = dict(zip(page.form.inputs, updates, strict=True))
    assert (fields["network_dim"]["value"], fields["resolution_px"]["value"]) == (20, "640x512")
    assert prompt.splitlines()[0] == "jeff_person as a superhero <lora:jeff_person:0.8>"
    assert "Realistic.safetensors" in head
    build(page.host, page.jobs)


def test_the_first_settings_are_the_face_recipe(page):
    start = starting_point(page.host.settings_file)
    assert (start.kind, start.preset) == ("face", preset_for("face"))
    assert start.values["algo"] == "loha" and start.base == start.values
    assert "output_name" not in start.values


def test_choosing_a_kind_loads_its_recipe(page):
    preset, _, _, prompt, _, *updates = page.actions.choose_kind("style", "", Proposed(), *page.values.values())
    assert preset == preset_for("style")
    fields = dict(zip(page.form.inputs, updates, strict=False))
    assert fields["algo"]["value"] == "lokr"
    assert "value" not in fields["output_name"]
    assert prompt == ""


def test_an_opened_recipe_lists_what_is_not_known(page, tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"network_dim": 12, "output_name": "anna", "nonsense": 1}))
    _, notices, base, prompt, _, *updates = page.actions.open_recipe(
        str(path), "style", "", Proposed(), *page.values.values()
    )
    fields = dict(zip(page.form.inputs, updates, strict=False))
    assert "mine.json" in notices
    assert "nonsense" in notices
    assert (fields["network_dim"]["value"], fields["output_name"]["value"]) == (12, "anna")
    assert prompt.splitlines()[0] == "cat in anna style <lora:anna:0.8>"
    assert read_base(base)["network_dim"] == 12 and "output_name" not in read_base(base)


def test_what_is_wrong_in_an_opened_recipe_is_said_beside_its_field(page, tmp_path):
    path = tmp_path / "kohya.json"
    wrong = {"lr_scheduler": "piecewise_constant", "network_dim": "big", "noise_offset": 7}
    path.write_text(json.dumps({"LoRA_type": "LyCORIS/LoHa", "max_grad_norm": 2, "conv_dim": 8, **wrong}))
    _, notices, _, _, _, *updates = page.actions.open_recipe(str(path), "face", "", Proposed(), *page.values.values())
    *_, fold, message = updates
    assert message == "", "what Train said of the recipe before"
    fields = dict(zip(page.form.inputs, updates, strict=False))
    assert {name for name, update in fields.items() if WRONG in update["info"]} == set(wrong)
    assert fields["max_grad_norm"]["value"] == 2
    # Out of range is shown as it stands there; what cannot be shown leaves the default.
    assert (fields["noise_offset"]["value"], fields["network_dim"]["value"]) == (7, 32)
    assert "piecewise_constant" in fields["lr_scheduler"]["info"] and "piecewise_constant" in notices
    assert fold.get("open")


def test_a_file_that_is_no_recipe_changes_nothing(page, tmp_path):
    path = tmp_path / "mine.json"
    path.write_text("{")
    _, notices, _, _, _, *updates = page.actions.open_recipe(str(path), "face", "", Proposed(), *page.values.values())
    assert "train-lora-error" in notices
    assert not any("value" in update for update in updates)


def test_a_setting_and_all_settings_go_back_to_the_recipe(page):
    base = show_base({"network_dim": 12, "resolution_px": (896, 640), "flip_aug": True, "output_name": "mine"})

    def values(name):
        updates = dict(zip(page.form.inputs, page.actions.reset(name, base), strict=True))
        return {key: update["value"] for key, update in updates.items() if "value" in update}

    assert values("network_dim") == {"network_dim": 12}
    assert values("") == {"network_dim": 12, "resolution_px": "896x640", "flip_aug": True}
    assert values("output_name") == {}, "what the person named stays"
    assert page.actions.reset("network_dim", "no JSON") == page.form.show({})


def test_the_recipe_of_an_opened_file_is_remembered(page, pictures):
    entered = {**page.values, "train_data_dir": pictures, "network_dim": 20}
    base = show_base({"network_dim": 12, "resolution_px": (640, 512)})
    page.actions.start.train("face", None, base, "", Proposed(), *entered.values())
    start = starting_point(page.host.settings_file)
    assert start.base == {"network_dim": 12, "resolution_px": "640x512"}
    assert read_base(page.actions.open_page()[3])["resolution_px"] == "640x512"


def test_settings_of_the_first_release_fill_the_page_in(page):
    values = {"network_dim": 20, "resolution_px": [640, 512], "trigger_word": "jeff", "output_name": "jeff"}
    path = page.host.settings_file
    path.write_text(json.dumps({"kind": "style", "preset": None, "values": values, "try": {"negative": "ugly"}}))
    assert starting_point(path).base == values
    path.write_text(json.dumps({"kind": "style", "preset": preset_for("style"), "values": values}))
    _, kind, preset, base, prompt, _, *updates = page.actions.open_page()
    fields = dict(zip(page.form.inputs, updates, strict=True))
    assert (kind, preset, fields["network_dim"]["value"]) == ("style", preset_for("style"), 20)
    assert read_base(base)["network_dim"] == 64 and "<lora:jeff:0.8>" in prompt
