"""The tab as a page of its own, outside a WebUI."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

from lib_trainer.host.access import Access
from lib_trainer.host.base import Host
from lib_trainer.jobs.queue import Jobs
from lib_trainer.preview.grid_job import GridJob
from lib_trainer.ui.tab import build
from lib_trainer.workbench.folders import Workbench

ROOT = Path(__file__).parents[2]


def build_page(
    host: Host, jobs: Jobs, access: Access, grid_job: GridJob | None = None, workbench: Workbench | None = None
) -> gr.Blocks:
    """The tab with the style and the script that a WebUI would load by itself. Needs gradio 4."""
    style = (ROOT / "style.css").read_text(encoding="utf-8")
    scripts = sorted((ROOT / "javascript").glob("*.js"))
    head = "".join(f"<script>{script.read_text(encoding='utf-8')}</script>" for script in scripts)
    # Built first: what is built inside another page is shown there at once.
    tab = build(host, jobs, access, grid_job, workbench=workbench, in_webui=False)
    with (
        gr.Blocks(title="Train LoRA", css=style, head=head, analytics_enabled=False) as page,
        gr.Column(elem_id="tab_train_lora"),
    ):
        tab.render()
    return page


def open_page(
    host: Host,
    jobs: Jobs,
    access: Access,
    address: str,
    port: int,
    grid_job: GridJob | None = None,
    workbench: Workbench | None = None,
) -> gr.Blocks:
    """The page, served from now on by a thread of its own; `app` is its FastAPI application."""
    # Events that may take long run in gradio's queue; a proxy would cut a plain request.
    page = build_page(host, jobs, access, grid_job, workbench).queue()
    # gradio switches FastAPI's pages off; the routes of ours are described there.
    documented = {"docs_url": "/docs", "redoc_url": "/redoc"}
    page.launch(server_name=address, server_port=port, show_api=False, prevent_thread_lock=True, app_kwargs=documented)
    return page
