"""Captions and crops, below the four steps. javascript/train_lora_workbench.js draws it; this is what it draws into.

The script reads by our routes. What it changes passes through a hidden button, so that gradio's own login guards it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from html import escape

import gradio as gr

from lib_trainer.errors import UserError
from lib_trainer.workbench.folders import Workbench

_LAYOUT = """
<section class="train-lora-workbench" hidden>
  <header><h3>Captions &amp; crops</h3>
    <span class="keys">Alt ↓ next · Alt ↑ previous · Ctrl S save · Ctrl Alt Z undo</span>
    <output></output><button data-do="undo" disabled>Undo</button><button data-do="close">Close</button></header>
  <div class="bulk"><select data-bulk="action">
      <option value="first">Put first</option><option value="add">Add tags</option>
      <option value="remove">Remove tags</option><option value="replace">Replace text</option>
      <option value="sort">Sort tags</option><option value="dedupe">Remove repeated tags</option></select>
    <input data-bulk="text" placeholder="tag, or the text to replace"/>
    <input data-bulk="new" placeholder="replace with" hidden/>
    <button data-do="bulk">Change all</button><span class="scope"></span>
    <button data-do="faces">Keep faces in the crop</button></div>
  <details class="auto"><summary>Caption by a machine</summary><div class="bulk">
    <select data-auto="captioner"></select>
    <input data-auto="prefix" placeholder="before (the trigger word)"/>
    <input data-auto="postfix" placeholder="after"/>
    <input data-auto="exclude" placeholder="never these tags"/>
    <label>threshold <input data-auto="threshold" type="number" min="0.05" max="0.95" step="0.05" value="0.35"/></label>
    <label><input data-auto="only_missing" type="checkbox" checked/> only where there is none</label>
    <button data-do="auto">Start</button><button data-do="autoStop" hidden>Stop</button>
    <span class="progress"></span></div></details>
  <div class="body"><div class="cards"></div><aside><h4>Tags</h4>
    <p class="note"></p><div class="tags"></div></aside></div>
  <footer><button data-do="earlier">Earlier</button><span class="place"></span>
    <button data-do="later">Later</button></footer>
</section>"""


@dataclass(frozen=True)
class WorkbenchPanel:
    command: gr.Textbox
    send: gr.Button
    answer: gr.HTML


def place_workbench() -> WorkbenchPanel:
    gr.HTML(_LAYOUT, elem_id="train_lora_workbench")
    with gr.Row(elem_classes="train-lora-hidden"):
        command = gr.Textbox("", elem_id="train_lora_workbench_command", show_label=False)
        send = gr.Button("Send", elem_id="train_lora_workbench_send")
        answer = gr.HTML("", elem_id="train_lora_workbench_answer")
    # WebUIs keep their own copy of every default.
    command.do_not_save_to_config = True
    return WorkbenchPanel(command, send, answer)


class WorkbenchActions:
    """What the hidden button does."""

    def __init__(self, workbench: Workbench) -> None:
        self._workbench = workbench

    def run(self, text: str) -> str:
        """-> answer: JSON in an attribute, with the `id` of the command."""
        # Imported late: it pulls in Pillow and numpy.
        from lib_trainer.workbench.commands import read_command

        values = {}
        try:
            values = read_command(text)
            result = self._workbench.commands(str(values.get("key"))).run(values)
        except UserError as error:
            result = {"error": f"{error.message} {error.hint}".strip()}
        answer = json.dumps({**result, "id": values.get("id")})
        return f'<div data-answer="{escape(answer, quote=True)}"></div>'
