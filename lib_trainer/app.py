"""Connects host, jobs, page and routes: inside a WebUI, and as a page of our own."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib_trainer.config.recipe import Recipe
from lib_trainer.errors import UserError
from lib_trainer.events import Event
from lib_trainer.host.access import Access
from lib_trainer.host.base import Host
from lib_trainer.host.detect import current_access, current_host
from lib_trainer.jobs.queue import Jobs
from lib_trainer.preview.grid_job import GridJob
from lib_trainer.workbench.folders import Workbench

if TYPE_CHECKING:
    from lib_trainer.ui.webui_tab import Tab


def default_run(host: Host, recipe: Recipe, folder: Path) -> Iterator[Event]:
    """`run.run`, imported when the first run starts: it imports torch and LyCORIS, which take seconds."""
    from lib_trainer.run import run

    return run(host, recipe, folder)


@lru_cache(maxsize=1)
def page_access() -> Access:
    """Cached: a page that was opened before "Reload UI" keeps its key."""
    return current_access()


@lru_cache(maxsize=1)
def host_and_jobs() -> tuple[Host, Jobs]:
    """The WebUI and its runs. Raises UserError in a program without a host module."""
    # Cached: "Reload UI" builds every tab again, and the new tab must find the current run.
    host = current_host()
    return host, Jobs(host, default_run)


@lru_cache(maxsize=1)
def page_grid_job() -> GridJob:
    """Cached like the runs, so that the new tab finds the last grid."""
    return GridJob(host_and_jobs()[0])


@lru_cache(maxsize=1)
def page_workbench() -> Workbench:
    """Cached like the runs: a page that is open keeps its folder."""
    return Workbench(host_and_jobs()[0])


def make_tab() -> Tab:
    """(page, label, id), as the WebUI's `on_ui_tabs` expects."""
    from lib_trainer.ui.webui_tab import build_tab, explain

    try:
        return build_tab(*host_and_jobs(), page_access(), page_grid_job(), page_workbench())
    except UserError as error:
        return explain(error)


def add_routes(app: Any) -> None:
    """Adds the routes to the WebUI's FastAPI application; none where training does not work."""
    from lib_trainer.ui.status_view import show_panel
    from lib_trainer.web.router import make_router

    try:
        host, jobs = host_and_jobs()
    except UserError:
        return
    app.include_router(make_router(host, jobs, page_access(), page_grid_job(), show_panel, page_workbench()))


def serve(host: Host, access: Access, address: str = "127.0.0.1", port: int = 7861) -> None:
    """Serves the tab as a page of its own, with the routes, until the program is interrupted.

    Raises:
        UserError: another program has the port.
    """
    from lib_trainer.ui.standalone_page import open_page
    from lib_trainer.ui.status_view import show_panel
    from lib_trainer.web.router import make_router

    jobs, grid_job, workbench = Jobs(host, default_run), GridJob(host), Workbench(host)
    try:
        page = open_page(host, jobs, access, address, port, grid_job, workbench)
    except OSError as error:
        message = f"Port {port} cannot be opened: {error}."
        raise UserError(message, "Close the other program, or name another port.") from error
    page.app.include_router(make_router(host, jobs, access, grid_job, show_panel, workbench))
    page.block_thread()
