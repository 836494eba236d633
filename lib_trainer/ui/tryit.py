"""Step 4: a picture with the new adapter, through the host's own text-to-image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from lib_trainer.errors import UserError
from lib_trainer.host.base import GenerateRequest, Host
from lib_trainer.jobs import Jobs
from lib_trainer.ui.messages import show_error

PROMPTS = {"face": "{word} as a superhero", "style": "cat in {word} style"}


@dataclass(frozen=True)
class TryPanel:
    prompt: gr.Textbox
    width: gr.Number
    height: gr.Number
    steps: gr.Number
    cfg: gr.Number
    seed: gr.Number
    make: gr.Button
    message: gr.HTML
    picture: gr.Image

    @property
    def inputs(self) -> list[gr.components.Component]:
        return [self.prompt, self.width, self.height, self.steps, self.cfg, self.seed]


def place_try(size_px: tuple[int, int]) -> TryPanel:
    gr.Markdown("### 4 · Try it")
    prompt = gr.Textbox(
        label="Prompt",
        lines=2,
        placeholder="jeff_person as a superhero <lora:jeff_person:0.8>",
        elem_id="train_lora_prompt",
    )
    with gr.Row():
        width = gr.Number(size_px[0], label="Width (px)", precision=0, minimum=64, maximum=4096, min_width=70)
        height = gr.Number(size_px[1], label="Height (px)", precision=0, minimum=64, maximum=4096, min_width=70)
        steps = gr.Number(20, label="Steps", precision=0, minimum=1, maximum=200, min_width=70)
        cfg = gr.Number(7.0, label="CFG scale", minimum=1, maximum=30, min_width=70)
        seed = gr.Number(1, label="Seed", precision=0, minimum=0, min_width=70)
    make = gr.Button("Make a picture", elem_id="train_lora_make")
    message = gr.HTML("", elem_id="train_lora_try_message", elem_classes="train-lora-maybe")
    picture = gr.Image(
        label="Picture", type="pil", interactive=False, visible=False, height=480, elem_id="train_lora_picture"
    )
    panel = TryPanel(prompt, width, height, steps, cfg, seed, make, message, picture)
    for component in panel.inputs:
        component.do_not_save_to_config = True
    return panel


def propose_prompt(kind: str, word: str, name: str, strength: float) -> str:
    """`jeff_person as a superhero <lora:jeff_person:0.8>`; "" until there is a name."""
    return f"{PROMPTS[kind].format(word=word or name)} <lora:{name}:{strength:g}>" if name else ""


def show_drawing() -> str:
    """Said at once: the picture itself may take its time, and its place is empty until then."""
    return "<p>Drawing …</p>"


def make_picture(host: Host, jobs: Jobs, *values: Any) -> tuple[dict[str, Any], str]:
    """-> picture, message: one picture, or a sentence where there is none."""
    prompt, width, height, steps, cfg, seed = values
    try:
        if jobs.status().live:
            raise UserError("The checkpoint is being trained on.", "Pictures can be made when the run is over.")
        if not all((width, height, steps, cfg)) or seed is None:
            raise UserError("A number is missing.", "Fill in width, height, steps, CFG scale and seed.")
        # Latents are an eighth of the picture.
        sides = [int(side) // 8 * 8 for side in (width, height)]
        request = GenerateRequest(
            prompt, width_px=sides[0], height_px=sides[1], steps=int(steps), cfg_scale=float(cfg), seed=int(seed)
        )
        picture = host.run_exclusive(lambda: host.generate(request))[0]
        return gr.update(value=picture, visible=True), ""
    except UserError as error:
        return gr.update(value=None, visible=False), show_error(error)
