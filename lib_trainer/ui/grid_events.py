"""What the buttons of step 4 call."""

from __future__ import annotations

from typing import Any

import gradio as gr

from lib_trainer.host.base import Host
from lib_trainer.ui.grid_actions import REMEMBERED, GridActions, show_drawing
from lib_trainer.ui.grid_panel import CellPanel, GridPanel


def bind_grid(
    host: Host,
    actions: GridActions,
    panel: GridPanel,
    cell: CellPanel,
    proposed: gr.State,
    quick: dict[str, Any],
    slow: dict[str, Any],
) -> gr.State:
    """Binds the events of step 4; returns the state of `GridActions.show`: the version that the page shows.

    Args:
        quick, slow: options of events that bypass gradio's queue, and of those that may take longer.
    """
    seen = gr.State(-1)
    live = [seen, *panel.live]
    # Two steps: the first answer comes at once, the second when the picture is there.
    panel.generate_picture.click(show_drawing, None, panel.message, **quick).then(
        actions.generate_picture, panel.inputs, [panel.picture, panel.message], **slow
    )
    panel.generate_grid.click(actions.start, [seen, *panel.inputs], [panel.message, cell.group, *live], **quick)
    panel.stop.click(actions.stop, seen, live, **quick)
    panel.refresh.click(actions.show, seen, live, **quick)
    listed = [panel.lora, panel.other]
    following = [*listed, panel.strengths]
    panel.reload.click(actions.reload, [*listed, panel.prompt, proposed, panel.strengths], following, **quick)
    # The script presses the button too when another checkpoint is loaded.
    usual = [panel.width, panel.height, panel.cfg]
    panel.reload.click(actions.follow_checkpoint, usual, usual, **quick)
    chosen = [panel.mode, *listed, panel.prompt, proposed, panel.strengths, panel.other_strengths]
    offered = [panel.pair, panel.prompt, proposed, panel.strengths, panel.other, panel.other_strengths]
    # `input`, not `change`: only a person's choice proposes prompts, not the page's own updates.
    for choice in (panel.mode, panel.lora, panel.other):
        choice.input(actions.offer, chosen, offered, **quick)
    opened = [cell.group, cell.picture, cell.about, cell.infotext, cell.choose, cell.done]
    panel.open.click(actions.open_cell, panel.cell, opened, **quick)
    cell.choose.click(actions.choose, panel.cell, cell.done, **slow)
    # A WebUI sends the infotext to txt2img by its own means.
    if not host.bind_sending(cell.send, cell.infotext):
        cell.send.click(actions.send, panel.cell, panel.prompt, **quick)
    return seen


def opened_page(panel: GridPanel, seen: gr.State) -> list[gr.components.Component]:
    """The outputs of `GridActions.open_page`."""
    remembered = [getattr(panel, name) for name in REMEMBERED]
    return [panel.lora, panel.other, panel.width, panel.height, *remembered, seen, *panel.live]
