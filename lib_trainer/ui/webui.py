"""The tab inside a WebUI."""

from __future__ import annotations

from functools import lru_cache

import gradio as gr

from lib_trainer.access import Access
from lib_trainer.errors import UserError
from lib_trainer.host.base import Host
from lib_trainer.host.detect import current_access, current_host
from lib_trainer.jobs import Jobs
from lib_trainer.preview.studio import Studio
from lib_trainer.ui.messages import show_error
from lib_trainer.ui.tab import build

LABEL, TAB_ID = "Train LoRA", "train_lora"


@lru_cache(maxsize=1)
def page_access() -> Access:
    """Kept as well: a page that was opened before "Reload UI" goes on asking with the key it has."""
    return current_access()


@lru_cache(maxsize=1)
def host_and_jobs() -> tuple[Host, Jobs]:
    """The WebUI, and its runs."""
    # "Reload UI" builds every tab anew; the run that is under way must be found again.
    host = current_host()
    return host, Jobs(host)


@lru_cache(maxsize=1)
def page_studio() -> Studio:
    """Kept like the runs: its last grid is found again."""
    return Studio(host_and_jobs()[0])


def make_tab() -> tuple[gr.Blocks, str, str]:
    """(page, label, id), as the WebUI's `on_ui_tabs` wants it."""
    try:
        return build(*host_and_jobs(), page_access().page_key, page_studio()), LABEL, TAB_ID
    except UserError as error:
        return explain(error), LABEL, TAB_ID


def explain(error: UserError) -> gr.Blocks:
    """The tab of a WebUI in which training cannot work."""
    with gr.Blocks(analytics_enabled=False) as blocks:
        gr.HTML(show_error(error))
    return blocks
