"""All settings: a filter, what differs from the chosen recipe, and the reset to it.

javascript/train_lora_settings.js compares the inputs with `base` and presses `reset`; a click needs no network for the
filter and the marks, and gradio alone sets its inputs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from lib_trainer.config.recipe import field_of, field_types
from lib_trainer.config.task import MODES_OF
from lib_trainer.ui.form import Form, to_input
from lib_trainer.ui.recipe_panel import OWN
from lib_trainer.utils.json_object import json_object


@dataclass(frozen=True)
class SettingsPanel:
    """`base` holds the values of the chosen recipe as JSON; `reset_name` says which setting `reset` sets back.

    javascript/train_lora_page.js presses `check` for the inputs in `check_names`, and `follow` for another checkpoint.
    """

    base: gr.Textbox
    reset_name: gr.Textbox
    reset: gr.Button
    check_names: gr.Textbox
    check: gr.Button
    follow: gr.Button


def place_settings(form: Form, base: Mapping[str, Any]) -> SettingsPanel:
    """Every setting that has no place yet; `base`: the values of the chosen recipe."""
    form.place_rest(_filter_bar())
    # Hidden by style.css, not by gradio: what gradio hides may be missing from the page.
    with gr.Row(elem_classes="train-lora-hidden"):
        base_values = gr.Textbox(show_base(base), label="Recipe", elem_id="train_lora_base")
        reset_name = gr.Textbox("", label="Setting", elem_id="train_lora_reset_name")
        reset = gr.Button("Reset", elem_id="train_lora_reset")
        check_names = gr.Textbox("", label="Settings", elem_id="train_lora_check_names")
        check = gr.Button("Check", elem_id="train_lora_check")
        follow = gr.Button("Follow", elem_id="train_lora_follow")
    for component in (base_values, reset_name, check_names):
        component.do_not_save_to_config = True
    return SettingsPanel(base_values, reset_name, reset, check_names, check, follow)


def show_base(values: Mapping[str, Any]) -> str:
    """A recipe's values as the inputs hold them, for the script and for `reset_to_base`."""
    # What a person has named is not the recipe's.
    shown = {name: to_input(name, value) for name, value in values.items() if name in field_types() and name not in OWN}
    return json.dumps(shown)


def read_base(base: str) -> dict[str, Any]:
    """The values that `show_base` wrote; {} for anything else that a browser may send."""
    known = field_types()
    return {name: value for name, value in json_object(base).items() if name in known}


def reset_to_base(form: Form, name: str, base: str) -> list[dict[str, Any]]:
    """-> *form: the setting `name` as the recipe has it; with "" every setting."""
    values = read_base(base)
    # `show` also clears the complaints: a value of the recipe is valid.
    return form.show({key: value for key, value in values.items() if name in ("", key)})


def _filter_bar() -> str:
    # The script hides what the mode, the LoRA type and the checkpoint's family do not use.
    about = {name: field_of(name).metadata for name in field_types()}
    only = {name: meta["adapters"] for name, meta in about.items() if meta["adapters"]}
    families = {name: meta["families"] for name, meta in about.items() if meta["families"]}
    rare = [name for name, meta in about.items() if not (meta["basic"] or meta["common"])]
    return (
        f'<div class="train-lora-filter" data-only="{_attribute(only)}" data-rare="{_attribute(rare)}"'
        f' data-families="{_attribute(families)}" data-modes="{_attribute(MODES_OF)}">'
        '<input type="search" placeholder="Filter: rank, bucket, save …" aria-label="Filter settings">'
        '<label><input type="checkbox"> Changed only</label><span class="count"></span>'
        '<button type="button" data-reset="">Reset all to the recipe</button></div>'
    )


def _attribute(value: Any) -> str:
    """JSON that an HTML attribute can hold."""
    return escape(json.dumps(value), quote=True)
