"""LoRA tools: resize, merge, merge into a checkpoint, extract. They need no model, and run beside a training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from lib_trainer.config.recipe import NAME_PATTERN
from lib_trainer.config.training import PRECISIONS
from lib_trainer.errors import UserError
from lib_trainer.host.access import Access
from lib_trainer.host.base import Host
from lib_trainer.lora.lookup import find_lora, missing_loras
from lib_trainer.lora.tags import tags_in
from lib_trainer.ui.messages import show_error
from lib_trainer.ui.recipe_check import require_allowed

if TYPE_CHECKING:
    from lib_trainer.lora.tools import Strong, Target

RESIZE, MERGE, INTO, EXTRACT = "Resize", "Merge LoRAs", "Merge into a checkpoint", "Extract"
TOOLS = {
    RESIZE: "Writes a LoRA of any type as LoCon of another rank.",
    MERGE: "Writes several LoRAs as one, each at the strength of its tag.",
    INTO: "Writes a checkpoint with LoRAs in its weights, beside the checkpoint.",
    EXTRACT: "Writes the difference of two checkpoints as a LoRA.",
}
# Which inputs each tool reads: LoRAs, checkpoint, base, and how much is kept.
_SHOWN = {
    RESIZE: (True, False, False, True), MERGE: (True, False, False, True),
    INTO: (True, True, False, False), EXTRACT: (False, True, True, True),
}  # fmt: skip


@dataclass(frozen=True)
class ToolsPanel:
    tool: gr.Radio
    about: gr.HTML
    loras: gr.Textbox
    checkpoint: gr.Textbox
    base: gr.Textbox
    rank: gr.Number
    energy: gr.Number
    precision: gr.Dropdown
    cut: gr.Row
    name: gr.Textbox
    run: gr.Button
    replace: gr.Button
    message: gr.HTML

    @property
    def inputs(self) -> list[gr.components.Component]:
        """What `ToolsActions.run` reads."""
        chosen = [self.tool, self.loras, self.checkpoint, self.base]
        return [*chosen, self.rank, self.energy, self.precision, self.name]

    @property
    def shown(self) -> list[gr.blocks.Block]:
        """What depends on the tool: the outputs of `choose_tool`."""
        return [self.about, self.loras, self.checkpoint, self.base, self.cut, self.replace]


def place_tools() -> ToolsPanel:
    with gr.Accordion("LoRA tools", open=False, elem_id="train_lora_tools"):
        tool = gr.Radio(list(TOOLS), value=RESIZE, label="Tool", elem_id="train_lora_tool")
        about = gr.HTML(_about(RESIZE))
        loras = gr.Textbox(
            "", label="LoRAs", info="As in a prompt: <lora:jeff:0.8> <lora:style:0.6>.", elem_id="train_lora_tool_loras"
        )
        checkpoint, base = (
            gr.Textbox("", label=label, info=info, max_lines=1, visible=False, elem_id=f"train_lora_tool_{name}")
            for name, label, info in (
                ("checkpoint", "Checkpoint", "Path of a .safetensors file: SD 1.x, SD 2.x or SDXL."),
                ("base", "Base checkpoint", "Path of the checkpoint that the first was made from."),
            )
        )
        with gr.Row() as cut:
            rank = gr.Number(16, label="Rank", info="At most; 0 keeps all.", precision=0)
            energy = gr.Number(1.0, label="Energy", info="Share of each layer's σ², at most 1.")
            precision = gr.Dropdown(
                list(PRECISIONS), value="fp16", label="Save precision", info="Number format of the file."
            )
        name = gr.Textbox("", label="Name of the new file", max_lines=1, elem_id="train_lora_tool_name")
        with gr.Row(elem_classes="train-lora-buttons train-lora-small"):
            run = gr.Button("Write", size="sm", min_width=90, elem_id="train_lora_tool_run")
            replace = gr.Button(
                "Replace the file", size="sm", min_width=90, visible=False, elem_id="train_lora_tool_replace"
            )
        message = gr.HTML("", elem_id="train_lora_tool_message", elem_classes="train-lora-maybe")
    for component in (tool, loras, checkpoint, base, rank, energy, precision, name):
        # WebUIs keep their own copy of every default.
        component.do_not_save_to_config = True
    return ToolsPanel(tool, about, loras, checkpoint, base, rank, energy, precision, cut, name, run, replace, message)


def choose_tool(tool: str) -> list[dict[str, Any]]:
    """-> *shown: the inputs that this tool reads."""
    visible = _SHOWN.get(tool, _SHOWN[RESIZE])
    return [gr.update(value=_about(tool)), *(gr.update(visible=one) for one in visible), gr.update(visible=False)]


def bind_tools(host: Host, access: Access | None, panel: ToolsPanel, quick: dict[str, Any]) -> None:
    """Binds the panel's events."""
    actions, done = ToolsActions(host, access or Access()), [panel.message, panel.replace]
    panel.tool.input(choose_tool, panel.tool, panel.shown, **quick)
    for button, act in ((panel.run, actions.run), (panel.replace, actions.replace_existing)):
        # With progress where gradio can: an SVD of every layer of SDXL takes minutes.
        button.click(act if _tracks_progress() else _untracked(act), panel.inputs, done, api_name=False)


def _tracks_progress() -> bool:
    """gradio 3 does not start a WebUI without its queue (`--no-gradio-queue`) where any event tracks progress."""
    return int(gr.__version__.partition(".")[0]) > 3


def _untracked(act: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
    return lambda *entered: act(*entered)


class ToolsActions:
    """What the buttons do. LoRAs are named, and lie in the host's folder; checkpoints lie in allowed folders."""

    def __init__(self, host: Host, access: Access) -> None:
        self._host, self._access = host, access

    def run(
        self, tool: str, loras: str, checkpoint: str, base: str, rank: float, energy: float, precision: str, name: str,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - gradio finds it by this default
    ) -> list[Any]:  # fmt: skip
        """-> message, replace."""
        return self._answer([tool, loras, checkpoint, base, rank, energy, precision, name], progress, replace=False)

    def replace_existing(
        self, tool: str, loras: str, checkpoint: str, base: str, rank: float, energy: float, precision: str, name: str,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - gradio finds it by this default
    ) -> list[Any]:  # fmt: skip
        """-> message, replace. The existing file is replaced by the new one once that is whole."""
        return self._answer([tool, loras, checkpoint, base, rank, energy, precision, name], progress, replace=True)

    def _answer(self, entered: list[Any], progress: gr.Progress, *, replace: bool) -> list[Any]:
        # Imported late, as all that pulls in torch.
        from lib_trainer.lora.tools import Target

        tool, _, checkpoint, *_, name = entered
        try:
            folder = self._checkpoint(checkpoint).parent if tool == INTO else self._host.lora_dir
            path = folder / f"{_checked_name(name)}.safetensors"
            if path.exists() and not replace:
                note = f'<div class="train-lora-note">{escape(path.name)} exists already.</div>'
                return [note, gr.update(visible=True)]
            target = Target(path, replace, lambda done, total: progress((done, total), unit="layers"))
            told = self._write(entered, target)
        except UserError as error:
            return [show_error(error, "Not written."), gr.update(visible=False)]
        return [f'<div class="train-lora-note">{told}</div>', gr.update(visible=False)]

    def _write(self, entered: list[Any], target: Target) -> str:
        from lib_trainer.lora.svd import checked_cut
        from lib_trainer.lora.tools import extract_lora, merge_into_checkpoint, merge_loras

        tool, loras, checkpoint, base, rank, energy, precision, _ = entered
        if tool == INTO:
            changed = merge_into_checkpoint(self._checkpoint(checkpoint), self._loras(loras), target)
            return f"{escape(str(target.path))}: {changed} layers changed. Refresh the list of checkpoints to see it."
        cut = checked_cut(int(rank or 0), float(energy or 0))
        if precision not in PRECISIONS:
            raise UserError("Choose a save precision.", f"One of {', '.join(PRECISIONS)}.")
        if tool == EXTRACT:
            file = extract_lora(self._checkpoint(checkpoint), self._checkpoint(base), target, cut, precision)
        else:
            chosen = self._loras(loras)
            if tool == RESIZE:
                if len(chosen) != 1:
                    raise UserError("Resize takes one LoRA.", "Write one tag.")
                # The strength belongs to the prompt, not to the file.
                chosen = [(chosen[0][0], 1.0)]
            file = merge_loras(chosen, target, cut, precision)
        self._host.lora_changed(target.path)
        size = target.path.stat().st_size / 1e6
        tag = escape(f"<lora:{target.path.stem}:1>")
        return f"{tag}: {file.size}, {size:.1f} MB."

    def _loras(self, text: str) -> list[Strong]:
        listed, found = self._host.loras(refresh=True), []
        for name, strength in tags_in(text):
            lora = find_lora(name, listed)
            if lora is None:
                raise missing_loras([name], listed)
            try:
                found.append((lora.path, float(strength or 1)))
            except ValueError as error:
                raise UserError(f"{strength!r} is not a strength.", "Write <lora:NAME:0.8>.") from error
        if not found:
            raise UserError("No LoRA is named.", "Write tags like <lora:jeff:0.8>.")
        return found

    def _checkpoint(self, text: str) -> Path:
        # Paths copied from a file manager come in quotation marks.
        text = text.strip().strip("\"'")
        require_allowed(self._access, text)
        path = Path(text).expanduser()
        if not text or not path.is_file():
            raise UserError("There is no such checkpoint file.", "Write the path of a .safetensors file.")
        return path


def _checked_name(name: str) -> str:
    name = name.strip().removesuffix(".safetensors")
    if not NAME_PATTERN.fullmatch(name):
        raise UserError("The new file needs a name.", "Leave out / \\ : < > , | ? * and quotes.")
    return name


def _about(tool: str) -> str:
    return f'<div class="train-lora-note">{escape(TOOLS.get(tool, ""))}</div>'
