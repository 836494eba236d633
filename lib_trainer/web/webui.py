"""The routes inside a WebUI, and on a page of our own."""

from __future__ import annotations

from fastapi import FastAPI

from lib_trainer.access import Access
from lib_trainer.errors import UserError
from lib_trainer.host.base import Host
from lib_trainer.jobs import Jobs
from lib_trainer.preview.studio import Studio
from lib_trainer.ui.page import open_page
from lib_trainer.ui.webui import host_and_jobs, page_access, page_studio
from lib_trainer.web.router import make_router


def add_routes(app: FastAPI) -> None:
    """Adds our routes to the WebUI's application. Where training cannot work there are none."""
    try:
        host, jobs = host_and_jobs()
    except UserError:
        return
    app.include_router(make_router(host, jobs, page_access(), page_studio()))


def serve(host: Host, access: Access, address: str = "127.0.0.1", port: int = 7861) -> None:
    """Shows the tab as a page of its own, with the routes, until the program is interrupted."""
    jobs, studio = Jobs(host), Studio(host)
    page = open_page(host, jobs, access, address, port, studio)
    page.app.include_router(make_router(host, jobs, access, studio))
    page.block_thread()
