"""The tab as a page of its own, for a program that is no WebUI."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

from lib_trainer.host.base import Host
from lib_trainer.jobs import Jobs
from lib_trainer.ui.tab import build

ROOT = Path(__file__).parents[2]


def build_page(host: Host, jobs: Jobs) -> gr.Blocks:
    """The tab with the style and the script that a WebUI would load by itself. Needs gradio 4."""
    style = (ROOT / "style.css").read_text(encoding="utf-8")
    script = (ROOT / "javascript" / "train_lora.js").read_text(encoding="utf-8")
    # Built first: what is built inside another page is shown there at once.
    tab = build(host, jobs)
    with gr.Blocks(
        title="Train LoRA", css=style, head=f"<script>{script}</script>", analytics_enabled=False
    ) as page, gr.Column(elem_id="tab_train_lora"):
        tab.render()
    return page


def serve(host: Host, address: str = "127.0.0.1", port: int = 7861) -> None:
    """Shows the page until the program is interrupted."""
    build_page(host, Jobs(host)).queue().launch(server_name=address, server_port=port, show_api=False)
