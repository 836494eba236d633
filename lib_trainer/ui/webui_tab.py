"""The tab inside a WebUI."""

from __future__ import annotations

import gradio as gr

from lib_trainer.errors import UserError
from lib_trainer.host.access import Access
from lib_trainer.host.base import Host
from lib_trainer.jobs.queue import Jobs
from lib_trainer.preview.grid_job import GridJob
from lib_trainer.ui.messages import show_error
from lib_trainer.ui.tab import build
from lib_trainer.workbench.folders import Workbench

LABEL, TAB_ID = "Train LoRA", "train_lora"

# (page, label, id), as the WebUI's `on_ui_tabs` expects it.
Tab = tuple[gr.Blocks, str, str]


def build_tab(host: Host, jobs: Jobs, access: Access, grid_job: GridJob, workbench: Workbench | None = None) -> Tab:
    return build(host, jobs, access, grid_job, workbench=workbench), LABEL, TAB_ID


def explain(error: UserError) -> Tab:
    """The tab of a WebUI in which training does not work."""
    with gr.Blocks(analytics_enabled=False) as blocks:
        gr.HTML(show_error(error))
    return blocks, LABEL, TAB_ID
