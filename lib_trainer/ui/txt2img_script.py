"""The strength grid as a script of txt2img: its inputs, and the grid they describe."""

from __future__ import annotations

from collections.abc import Sequence

import gradio as gr

from lib_trainer.errors import UserError
from lib_trainer.host.base import GenerateRequest, Host
from lib_trainer.lora.info import LoraInfo
from lib_trainer.lora.lookup import find_lora, misfit, require_loras
from lib_trainer.lora.tags import LoraRef, names_in
from lib_trainer.preview.grid_spec import GridSpec, combined_grid, strength_grid
from lib_trainer.preview.ranges import DEFAULT_STRENGTHS, read_strengths, show_strengths


def place_script(host: Host) -> list[gr.components.Component]:
    """-> lora, strengths, other, other strengths: the inputs of `plan_script`, in its order."""
    names = [lora.name for lora in host.loras() if not lora.problem]
    with gr.Row():
        lora = gr.Dropdown(
            choices=names, label="LoRA", info="Empty: the first of the prompt.", elem_id="train_lora_script_lora"
        )
        strengths = gr.Textbox(
            show_strengths(DEFAULT_STRENGTHS), label="Strengths", info="A list, or a range: 0:1:0.25. 0 is without it.",
            max_lines=1, elem_id="train_lora_script_strengths",
        )  # fmt: skip
    with gr.Row():
        other = gr.Dropdown(
            choices=names, label="Second LoRA", info="Empty: one LoRA alone.", elem_id="train_lora_script_other"
        )
        other_strengths = gr.Textbox(
            "",
            label="Second strengths",
            info="One column for each.",
            max_lines=1,
            elem_id="train_lora_script_other_strengths",
        )
    refresh = gr.Button("Refresh the list", elem_id="train_lora_script_refresh")
    refresh.click(lambda: _refreshed(host), None, [lora, other], queue=False, show_progress="hidden", api_name=False)
    return [lora, strengths, other, other_strengths]


def plan_script(
    host: Host, prompt: str, seeds: Sequence[int],
    lora: str | None, strengths: str, other: str | None, other_strengths: str,
) -> GridSpec:  # fmt: skip
    """The grid of one prompt: a row a seed, a column a strength; with another LoRA its strengths go across.

    Raises:
        UserError: for unknown names and invalid numbers.
    """
    # A file may have been trained since the page was opened.
    loras = host.loras(refresh=True)
    named = lora or next(iter(names_in(prompt)), "")
    if not named:
        raise UserError("No LoRA is chosen.", "Choose one, or write its <lora:…> into the prompt.")
    require_loras([prompt, *(LoraRef(name, 1).tag for name in (named, other) if name)], loras, host.drawing_family())
    varied, base = _ref(named, loras), GenerateRequest("")
    if not other:
        return strength_grid(base, [prompt], seeds, varied, read_strengths(strengths))
    # One list may serve both.
    across = read_strengths(other_strengths or strengths)
    return combined_grid(base, [prompt], seeds, (varied, read_strengths(strengths)), (_ref(other, loras), across))


def _ref(name: str, loras: Sequence[LoraInfo]) -> LoraRef:
    found = find_lora(name, loras)
    return LoraRef(found.name, aliases=found.aliases)


def _refreshed(host: Host) -> list[dict[str, object]]:
    family = host.drawing_family()
    loras = [lora for lora in host.loras(refresh=True) if not lora.problem and not misfit(lora, family)]
    return [gr.update(choices=[lora.name for lora in loras]) for _ in range(2)]
