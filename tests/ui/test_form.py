"""The inputs of a recipe."""

from __future__ import annotations

import pytest

pytest.importorskip("gradio")

import gradio as gr

from lib_trainer.config.recipe import Recipe, field_types
from lib_trainer.errors import ConfigError
from lib_trainer.ui.form import Form, label_of, to_input
from lib_trainer.ui.recipe_check import recipe_from

FULL = {"train_data_dir": "/pictures", "output_name": "jeff"}


@pytest.fixture(scope="module")
def form():
    form = Form({"network_dim": 24})
    with gr.Blocks():
        form.place("output_name")
        form.place_rest()
    return form


def inputs(**changes):
    return {name: to_input(name, value) for name, value in {**Recipe().flat(), **FULL, **changes}.items()}


def test_every_setting_has_exactly_one_input(form):
    assert set(form.inputs) == set(field_types())
    assert len(form.components) == len(field_types())


def test_first_values_are_the_given_ones_and_else_the_defaults(form):
    assert form.inputs["network_dim"].value == 24
    assert form.inputs["conv_dim"].value == Recipe().adapter.conv_dim
    assert form.inputs["resolution_px"].value == "768x768"


def test_the_webui_keeps_no_defaults_of_its_own(form):
    assert all(component.do_not_save_to_config for component in form.components)


def test_a_recipe_survives_the_way_through_the_inputs():
    recipe = Recipe().with_values({**FULL, "resolution_px": "896,640", "learning_rate": 3e-5, "seed": 2**62 + 1})
    assert recipe_from({name: to_input(name, value) for name, value in recipe.flat().items()}) == recipe


def test_whole_numbers_come_from_the_browser_as_floats():
    assert recipe_from(inputs(network_dim=16.0)).adapter.network_dim == 16


def test_all_problems_are_reported_together():
    with pytest.raises(ConfigError) as caught:
        recipe_from({**inputs(network_dim=0, output_name="a/b"), "epoch": None, "seed": "x", "conv_dim": 1.5})
    assert set(caught.value.problems) == {"network_dim", "output_name", "epoch", "seed", "conv_dim"}
    assert caught.value.problems["epoch"] == "is empty"


def test_a_problem_stands_at_its_input_and_opens_its_fold(form):
    updates = form.complain({"network_dim": "is too large"}, {"output_name": "anna"})
    by_name = dict(zip(form.inputs, updates, strict=False))
    assert by_name["network_dim"]["info"] == "⚠ is too large"
    assert by_name["output_name"]["value"] == "anna"
    assert "⚠" not in by_name["output_name"]["info"]
    assert updates[len(form.inputs) :] == [gr.update(open=True)]


def test_a_problem_above_the_fold_leaves_it_closed(form):
    assert form.complain({"train_data_dir": "is missing"}, {})[-1] == gr.update()


def test_labels_carry_their_unit_once():
    assert label_of("resolution_px") == "Resolution (px)"
    assert label_of("max_train_steps") == "Max train steps"
