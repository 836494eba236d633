"""Step 4: which LoRA at which strengths, and on which prompts it is tried."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from lib_trainer.lora.prompts import join_lines, propose_prompts
from lib_trainer.lora.tags import LoraRef
from lib_trainer.preview.grid_request import MODES, STRENGTHS
from lib_trainer.preview.ranges import DEFAULT_STRENGTHS, show_strengths
from lib_trainer.ui.grid_view import show_grid

PAIR_STRENGTHS = (0.4, 0.6, 0.8)
CHOOSE_HELP = (
    "“Choose this one” puts this strength and this picture on the LoRA's card. Of saved steps it also makes this one"
    " the final file; the file before it stays, under the name of its step."
)
PROMPT_HELP = "One a line: a row each. A <lora:…> in it stays where it stands, its strength is varied."


@dataclass(frozen=True)
class TryPanel:
    """`refresh` and `open` are pressed by javascript/train_lora_grid.js; `cell` says which picture was clicked."""

    lora: gr.Dropdown
    reload: gr.Button
    mode: gr.Radio
    beside: gr.Row
    other: gr.Dropdown
    other_strengths: gr.Textbox
    prompt: gr.Textbox
    strengths: gr.Textbox
    negative: gr.Textbox
    width: gr.Number
    height: gr.Number
    steps: gr.Number
    cfg: gr.Number
    sampler: gr.Dropdown
    schedule: gr.Dropdown
    seeds: gr.Textbox
    make: gr.Button
    grid: gr.Button
    stop: gr.Button
    message: gr.HTML
    picture: gr.Image
    grid_status: gr.HTML
    refresh: gr.Button
    cell: gr.Textbox
    open: gr.Button
    beat: gr.HTML

    @property
    def inputs(self) -> list[gr.components.Component]:
        """In the order of `try_given.GridRequest`."""
        return [
            self.mode, self.lora, self.strengths, self.other, self.other_strengths, self.prompt, self.negative,
            self.width, self.height, self.steps, self.cfg, self.sampler, self.schedule, self.seeds,
        ]  # fmt: skip

    @property
    def live(self) -> list[gr.components.Component]:
        """What follows the grid: the outputs of `TryActions.show`."""
        return [self.grid_status, self.grid, self.stop, self.beat]


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


def place_try(size_px: tuple[int, int]) -> TryPanel:
    gr.Markdown("### 4 · Try it")
    with gr.Row(elem_classes="train-lora-beside"):
        lora = gr.Dropdown(
            choices=[], label="LoRA", info="Whose strength is varied.", scale=4, elem_id="train_lora_try_lora"
        )
        reload = gr.Button("Refresh", scale=1, min_width=70, elem_id="train_lora_try_reload")
    mode = gr.Radio(choices=list(MODES), value=STRENGTHS, label="Compare", elem_id="train_lora_try_mode")
    with gr.Row(visible=False) as beside:
        other = gr.Dropdown(choices=[], label="With", info="Its strengths go across.", elem_id="train_lora_try_other")
        other_strengths = gr.Textbox(
            show_strengths(PAIR_STRENGTHS), label="at", info="A list, or a range: 0:1:0.25.", max_lines=1,
            elem_id="train_lora_try_other_strengths",
        )  # fmt: skip
    prompt = gr.Textbox(
        label="Prompts",
        info=PROMPT_HELP,
        lines=2,
        placeholder="jeff_person as a superhero <lora:jeff_person:0.8>",
        elem_id="train_lora_prompt",
    )
    strengths = gr.Textbox(
        show_strengths(DEFAULT_STRENGTHS), label="Strengths", info="A list, or a range: 0:1:0.25. 0 is without it.",
        max_lines=1, elem_id="train_lora_try_strengths",
    )  # fmt: skip
    with gr.Accordion("Size, sampler, seeds, negative prompt", open=False, elem_id="train_lora_try_more"):
        with gr.Row():
            width = gr.Number(size_px[0], label="Width (px)", precision=0, minimum=64, maximum=4096, min_width=70)
            height = gr.Number(size_px[1], label="Height (px)", precision=0, minimum=64, maximum=4096, min_width=70)
            steps = gr.Number(20, label="Steps", precision=0, minimum=1, maximum=200, min_width=70)
            cfg = gr.Number(7.0, label="CFG scale", minimum=1, maximum=30, min_width=70)
        with gr.Row():
            sampler = gr.Dropdown(choices=[], label="Sampler", min_width=120, elem_id="train_lora_try_sampler")
            schedule = gr.Dropdown(choices=[], label="Schedule", min_width=120, elem_id="train_lora_try_schedule")
            seeds = gr.Textbox("1", label="Seeds", max_lines=1, min_width=90, elem_id="train_lora_try_seeds")
        negative = gr.Textbox(label="Negative prompt", lines=1, elem_id="train_lora_try_negative")
    with gr.Row(elem_classes="train-lora-buttons"):
        make = gr.Button("Make a picture", min_width=110, elem_id="train_lora_make")
        grid = gr.Button("Make the grid", variant="primary", min_width=110, elem_id="train_lora_grid")
        stop = gr.Button("Stop", interactive=False, min_width=70, elem_id="train_lora_grid_stop")
    message = gr.HTML("", elem_id="train_lora_try_message", elem_classes="train-lora-maybe")
    picture = gr.Image(
        label="Picture", type="pil", interactive=False, visible=False, height=480, elem_id="train_lora_picture"
    )
    grid_status = gr.HTML(show_grid(), elem_id="train_lora_sheet", elem_classes="train-lora-maybe")
    # Hidden by style.css, not by gradio: what gradio hides may be missing from the page.
    with gr.Row(elem_classes="train-lora-hidden"):
        refresh = gr.Button("Refresh", elem_id="train_lora_grid_refresh")
        cell = gr.Textbox("", label="Picture", elem_id="train_lora_grid_cell")
        open_cell = gr.Button("Open", elem_id="train_lora_grid_open")
        beat = gr.HTML("", elem_id="train_lora_grid_beat")
    panel = TryPanel(
        lora, reload, mode, beside, other, other_strengths, prompt, strengths, negative, width, height, steps, cfg,
        sampler, schedule, seeds, make, grid, stop, message, picture, grid_status, refresh, cell, open_cell, beat,
    )  # fmt: skip
    for component in (*panel.inputs, cell):
        component.do_not_save_to_config = True
    return panel


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


def propose_prompt(kind: str, word: str, name: str, strength: float) -> str:
    """`jeff_person as a superhero <lora:jeff_person:0.8>` and others, one a line; "" until there is a name."""
    tag = LoraRef(name, strength).tag
    return join_lines([f"{prompt} {tag}" for prompt in propose_prompts(kind, word or name)]) if name else ""
