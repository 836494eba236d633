"""What the buttons of step 4 are wired to."""

from __future__ import annotations

from typing import Any

import gradio as gr

from lib_trainer.host.base import Host
from lib_trainer.ui.grid_actions import REMEMBERED, TryActions, show_drawing
from lib_trainer.ui.grid_panel import CellPanel, TryPanel


def wire_try(
    host: Host,
    actions: TryActions,
    panel: TryPanel,
    cell: CellPanel,
    proposed: gr.State,
    quick: dict[str, Any],
    slow: dict[str, Any],
) -> gr.State:
    """Wires step 4 and returns the state that `TryActions.show` keeps: the version that the page shows.

    Args:
        quick, slow: options of events that bypass gradio's queue, and of those that may take their time.
    """
    seen = gr.State(-1)
    live = [seen, *panel.live]
    panel.make.click(show_drawing, None, panel.message, **quick).then(
        actions.make_picture, panel.inputs, [panel.picture, panel.message], **slow
    )
    panel.grid.click(actions.begin, [seen, *panel.inputs], [panel.message, *live], **quick)
    panel.stop.click(actions.stop, seen, live, **quick)
    panel.refresh.click(actions.show, seen, live, **quick)
    panel.reload.click(actions.reload, [panel.lora, panel.other, panel.prompt], [panel.lora, panel.other], **quick)
    chosen = [panel.mode, panel.lora, panel.other, panel.prompt, proposed]
    for choice in (panel.mode, panel.lora, panel.other):
        choice.input(actions.offer, chosen, [panel.beside, panel.prompt, proposed], **quick)
    opened = [cell.group, cell.picture, cell.about, cell.infotext, cell.choose, cell.done]
    panel.open.click(actions.open_cell, panel.cell, opened, **quick)
    cell.choose.click(actions.choose, panel.cell, cell.done, **slow)
    if not host.bind_sending(cell.send, cell.infotext):
        cell.send.click(actions.send, panel.cell, panel.prompt, **quick)
    return seen


def opened_page(panel: TryPanel, seen: gr.State) -> list[gr.components.Component]:
    """The outputs of `TryActions.open_page`."""
    remembered = [getattr(panel, name) for name in REMEMBERED]
    return [panel.lora, panel.other, panel.width, panel.height, *remembered, seen, *panel.live]
