"""Step 2: which recipe, under which name, and how long and how large the run will be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from math import ceil
from pathlib import Path
from typing import Any

import gradio as gr

from lib_trainer.models.families import Family
from lib_trainer.recipes.files import load_recipe, presets
from lib_trainer.recipes.loaded import LoadedRecipe
from lib_trainer.ui.form import Form, shown_name

# A recipe that leaves these open, as the shipped ones do, keeps what the person has said of their pictures.
OWN = (
    *("train_data_dir", "diff_target_dir", "trigger_word", "output_name", "comment"),
    *("original_prompt", "target_prompt", "neutral_prompt"),
)


# javascript/train_lora_settings.js opens the fold below the steps, and writes how many differ from the recipe.
OPEN_SETTINGS = (
    '<button type="button" class="train-lora-open" data-fold="train_lora_all">All settings <small></small></button>'
)


@dataclass(frozen=True)
class RecipePanel:
    preset: gr.Dropdown
    upload: gr.UploadButton
    name: gr.Textbox
    length: gr.HTML
    memory: gr.HTML
    notices: gr.HTML


def place_recipe(form: Form, preset_value: str | None) -> RecipePanel:
    gr.Markdown("### 2 · Recipe")
    names = list(presets())
    with gr.Row(elem_classes="train-lora-beside"):
        preset = gr.Dropdown(
            choices=names,
            value=preset_value,
            label="Recipe",
            info="Tuned for GPUs with 8 GB; every value can be changed.",
            elem_id="train_lora_preset",
            scale=4,
        )
        # WebUIs keep their own copy of every default; ours are remembered by us.
        preset.do_not_save_to_config = True
        kinds = [".json", ".toml", ".safetensors"]
        upload = gr.UploadButton("Open …", file_types=kinds, scale=1, min_width=70, elem_id="train_lora_upload")
    notices = gr.HTML("", elem_id="train_lora_recipe_notices", elem_classes="train-lora-maybe")
    with gr.Row():
        name = form.place("output_name", placeholder="jeff_person")
        form.place("max_train_steps")
        form.place("resolution_px")
    length = gr.HTML("", elem_id="train_lora_length", elem_classes="train-lora-maybe")
    memory = gr.HTML("", elem_id="train_lora_memory", elem_classes="train-lora-maybe")
    gr.HTML(OPEN_SETTINGS)
    return RecipePanel(preset, upload, name, length, memory, notices)


def preset_for(kind: str, family: Family | None = None) -> str | None:
    """The shipped recipe for a kind of pictures, and for transformers or UNets: the first whose name says so."""
    is_flow = family is not None and family.is_flow
    stems = {label: path.stem.lower() for label, path in presets().items()}
    fitting = [label for label, stem in stems.items() if kind in stem]
    # Sliders and differences have one recipe for all families.
    return next((label for label in fitting if ("flow" in stems[label]) == is_flow), next(iter(fitting), None))


def load_preset(label: str) -> LoadedRecipe:
    return load_recipe(presets()[label])


def load_upload(file: Any) -> LoadedRecipe:
    """What gradio hands over for an uploaded file: an object with a name in 3.x, a path in 4.x."""
    return load_recipe(Path(getattr(file, "name", file)))


def recipe_values(loaded: LoadedRecipe) -> dict[str, Any]:
    return {name: value for name, value in loaded.recipe.flat().items() if value or name not in OWN}


def show_notices(title: str, loaded: LoadedRecipe, kept: Mapping[str, str]) -> str:
    """That a recipe file is loaded, and everything in it that is invalid or not used.

    Args:
        kept: setting -> value of the file, where the page keeps what a person typed.
    """
    wrong = [f"{shown_name(name)}: {text}." for name, text in loaded.problems.items()]
    typed = [f"{shown_name(name)}: yours is kept; the file has {value}." for name, value in kept.items()]
    lines = "".join(f"<li>{escape(text)}</li>" for text in (*wrong, *typed, *loaded.notices))
    return f'<div class="train-lora-note"><b>{escape(title)}</b> is loaded.<ul>{lines}</ul></div>'


def pictures_drawn(pictures: int, values: Mapping[str, Any]) -> int:
    """Pictures that a run draws in all, for so many an epoch; 0 until it is known."""
    try:
        steps, epochs = int(values["max_train_steps"]), int(values["epoch"])
        batch = int(values["train_batch_size"]) * int(values["gradient_accumulation_steps"])
    except (TypeError, ValueError):
        return 0
    return steps * batch if steps else epochs * pictures


def show_length(pictures: int, values: Mapping[str, Any]) -> str:
    """How long the run will be: `1200 steps: 10 epochs of 120 pictures`. Empty until it is known."""
    try:
        steps, epochs = int(values["max_train_steps"]), int(values["epoch"])
        batch = int(values["train_batch_size"]) * int(values["gradient_accumulation_steps"])
    # An input that is being typed in: the check at the start reports it.
    except (TypeError, ValueError):
        return ""
    if not pictures or batch < 1 or epochs < 1 or steps < 0:
        return ""
    # The last batch of an epoch may be smaller.
    per_epoch = ceil(pictures / batch)
    if steps:
        text = f"{steps} steps: {steps / per_epoch:.3g} epochs of {pictures} pictures"
    else:
        text = f"{per_epoch * epochs} steps: {epochs} epochs of {pictures} pictures"
    return f'<p class="train-lora-plan">{text}{f", {batch} in a step" if batch > 1 else ""}.</p>'
