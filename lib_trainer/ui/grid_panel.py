"""Step 4: which LoRA at which strengths, and the prompts to try it on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from lib_trainer.lora.prompts import join_lines, propose_prompts
from lib_trainer.lora.tags import LoraRef
from lib_trainer.preview.grid_request import MODES, STRENGTHS
from lib_trainer.preview.ranges import DEFAULT_STRENGTHS, show_strengths
from lib_trainer.ui.grid_view import show_grid

PAIR_STRENGTHS = (0.4, 0.6, 0.8)
STRENGTHS_HELP = "A list, or a range: 0:1:0.25."
CHOOSE_HELP = (
    "“Choose this one” puts this strength and this picture on the LoRA's card. Of saved steps it also makes this one"
    " the final file; the previous file is kept under the name of its step."
)
PROMPT_HELP = "One a line: a row each. A <lora:…> in it keeps its position; its strength is varied."


@dataclass(frozen=True)
class GridPanel:
    """`refresh` and `open` are pressed by javascript/train_lora_grid.js; `cell` says which picture was clicked."""

    mode: gr.Radio
    lora: gr.Dropdown
    strengths: gr.Textbox
    other: gr.Dropdown
    other_strengths: gr.Textbox
    prompt: gr.Textbox
    negative: gr.Textbox
    width: gr.Number
    height: gr.Number
    steps: gr.Number
    cfg: gr.Number
    sampler: gr.Dropdown
    schedule: gr.Dropdown
    seeds: gr.Textbox
    reload: gr.Button
    pair: gr.Row
    generate_picture: gr.Button
    generate_grid: gr.Button
    stop: gr.Button
    message: gr.HTML
    picture: gr.Image
    view: gr.HTML
    refresh: gr.Button
    cell: gr.Textbox
    open: gr.Button
    heartbeat: gr.HTML

    @property
    def inputs(self) -> list[gr.components.Component]:
        """In the order of the fields of `grid_request.GridRequest`."""
        return [
            self.mode, self.lora, self.strengths, self.other, self.other_strengths, self.prompt, self.negative,
            self.width, self.height, self.steps, self.cfg, self.sampler, self.schedule, self.seeds,
        ]  # fmt: skip

    @property
    def live(self) -> list[gr.components.Component]:
        """What follows the grid: the outputs of `GridActions.show`."""
        return [self.view, self.generate_grid, self.stop, self.heartbeat]


@dataclass(frozen=True)
class CellPanel:
    """The picture that was clicked, and what can be done with it."""

    group: gr.Column
    picture: gr.Image
    about: gr.HTML
    infotext: gr.Textbox
    send: gr.Button
    choose: gr.Button
    done: gr.HTML


def place_grid(size_px: tuple[int, int]) -> GridPanel:
    """The whole step but for `view` and the clicked picture; `size_px`: width and height of a picture."""
    gr.Markdown("### 4 · Try it")
    panel = GridPanel(**_place_loras(), **_place_picture_options(size_px), **_place_buttons(), **_place_results())
    for component in (*panel.inputs, panel.cell):
        # WebUIs keep their own copy of every default; ours are remembered by us.
        component.do_not_save_to_config = True
    return panel


def _place_loras() -> dict[str, Any]:
    """Which LoRAs, at which strengths, on which prompts."""
    with gr.Row(elem_classes="train-lora-beside"):
        lora = gr.Dropdown(
            choices=[], label="LoRA", info="Its strength is varied.", scale=4, elem_id="train_lora_grid_lora"
        )
        reload = gr.Button("Refresh", scale=1, min_width=70, elem_id="train_lora_grid_reload")
    mode = gr.Radio(choices=list(MODES), value=STRENGTHS, label="Compare", elem_id="train_lora_grid_mode")
    with gr.Row(visible=False) as pair:
        other = gr.Dropdown(
            choices=[], label="Second LoRA", info="One column for each of its strengths.",
            elem_id="train_lora_grid_other",
        )  # fmt: skip
        other_strengths = gr.Textbox(
            show_strengths(PAIR_STRENGTHS), label="Second strengths", info=STRENGTHS_HELP, max_lines=1,
            elem_id="train_lora_grid_other_strengths",
        )  # fmt: skip
    prompt = gr.Textbox(
        label="Prompts", info=PROMPT_HELP, lines=2, placeholder="jeff_person as a superhero <lora:jeff_person:0.8>",
        elem_id="train_lora_prompt",
    )  # fmt: skip
    strengths = gr.Textbox(
        show_strengths(DEFAULT_STRENGTHS), label="Strengths", info=f"{STRENGTHS_HELP} 0 is without the LoRA.",
        max_lines=1, elem_id="train_lora_grid_strengths",
    )  # fmt: skip
    return {
        "lora": lora, "reload": reload, "mode": mode, "pair": pair, "other": other, "other_strengths": other_strengths,
        "prompt": prompt, "strengths": strengths,
    }  # fmt: skip


def _place_picture_options(size_px: tuple[int, int]) -> dict[str, Any]:
    """How each picture is generated."""
    with gr.Accordion("Size, sampler, seeds, negative prompt", open=False, elem_id="train_lora_grid_more"):
        with gr.Row():
            width = gr.Number(size_px[0], label="Width (px)", precision=0, minimum=64, maximum=4096, min_width=70)
            height = gr.Number(size_px[1], label="Height (px)", precision=0, minimum=64, maximum=4096, min_width=70)
            steps = gr.Number(20, label="Steps", precision=0, minimum=1, maximum=200, min_width=70)
            cfg = gr.Number(7.0, label="CFG scale", minimum=1, maximum=30, min_width=70)
        with gr.Row():
            sampler = gr.Dropdown(choices=[], label="Sampler", min_width=120, elem_id="train_lora_grid_sampler")
            schedule = gr.Dropdown(choices=[], label="Schedule type", min_width=120, elem_id="train_lora_grid_schedule")
            seeds = gr.Textbox("1", label="Seeds", max_lines=1, min_width=90, elem_id="train_lora_grid_seeds")
        negative = gr.Textbox(label="Negative prompt", lines=1, elem_id="train_lora_grid_negative")
    return {
        "width": width, "height": height, "steps": steps, "cfg": cfg, "sampler": sampler, "schedule": schedule,
        "seeds": seeds, "negative": negative,
    }  # fmt: skip


def _place_buttons() -> dict[str, Any]:
    with gr.Row(elem_classes="train-lora-buttons"):
        picture = gr.Button("Generate picture", min_width=110, elem_id="train_lora_generate_picture")
        grid = gr.Button("Generate grid", variant="primary", min_width=110, elem_id="train_lora_generate_grid")
        stop = gr.Button("Stop", interactive=False, min_width=70, elem_id="train_lora_grid_stop")
    return {"generate_picture": picture, "generate_grid": grid, "stop": stop}


def _place_results() -> dict[str, Any]:
    message = gr.HTML("", elem_id="train_lora_grid_message", elem_classes="train-lora-maybe")
    picture = gr.Image(
        label="Picture", type="pil", interactive=False, visible=False, height=480, elem_id="train_lora_picture"
    )
    # Shown below both columns: beside a long grid the other one would stay empty.
    view = gr.HTML(show_grid(), elem_id="train_lora_grid_view", elem_classes="train-lora-maybe", render=False)
    # Hidden by style.css, not by gradio: what gradio hides may be missing from the page.
    with gr.Row(elem_classes="train-lora-hidden"):
        refresh = gr.Button("Refresh", elem_id="train_lora_grid_refresh")
        cell = gr.Textbox("", label="Picture", elem_id="train_lora_grid_cell")
        open_cell = gr.Button("Open", elem_id="train_lora_grid_open")
        heartbeat = gr.HTML("", elem_id="train_lora_grid_heartbeat")
    return {
        "message": message, "picture": picture, "view": view, "refresh": refresh, "cell": cell, "open": open_cell,
        "heartbeat": heartbeat,
    }  # fmt: skip


def place_cell() -> CellPanel:
    with gr.Column(visible=False, elem_id="train_lora_cell") as group:
        picture = gr.Image(
            label="Picture", type="pil", interactive=False, height=480, elem_id="train_lora_cell_picture"
        )
        about = gr.HTML("", elem_id="train_lora_cell_about")
        infotext = gr.Textbox(
            label="Prompt and settings", lines=3, interactive=False, elem_id="train_lora_cell_infotext"
        )
        with gr.Row(elem_classes="train-lora-buttons"):
            send = gr.Button("Send to txt2img", min_width=110, elem_id="train_lora_cell_send")
            choose = gr.Button("Choose this one", min_width=110, elem_id="train_lora_cell_choose")
        gr.HTML(f'<p class="train-lora-plan">{CHOOSE_HELP}</p>')
        done = gr.HTML("", elem_id="train_lora_cell_done", elem_classes="train-lora-maybe")
    infotext.do_not_save_to_config = True
    return CellPanel(group, picture, about, infotext, send, choose, done)


def propose_prompt(kind: str, trigger_word: str, name: str, strength: float, prompts: Sequence[str] = ()) -> str:
    """`jeff_person as a superhero <lora:jeff_person:0.8>` and others, one a line; "" until there is a name.

    Args:
        prompts: of a slider, which it moves.
    """
    tag, prompts = LoraRef(name, strength).tag, prompts or propose_prompts(kind, trigger_word or name)
    return join_lines([f"{prompt} {tag}" for prompt in prompts]) if name else ""
