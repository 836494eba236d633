"""The routes under `/train-lora/v1`, for any FastAPI application."""

from __future__ import annotations

from fastapi import APIRouter

from lib_trainer.host.access import Access
from lib_trainer.host.base import Host
from lib_trainer.jobs.queue import Jobs
from lib_trainer.preview.grid_job import GridJob
from lib_trainer.web.auth import Guard
from lib_trainer.web.context import RouteContext
from lib_trainer.web.dataset_routes import add_dataset_routes
from lib_trainer.web.grid_routes import add_grid_routes
from lib_trainer.web.job_routes import add_run_routes
from lib_trainer.web.panel_route import ShowPanel, add_view_routes
from lib_trainer.workbench.folders import Workbench

PREFIX = "/train-lora/v1"


def make_router(
    host: Host,
    jobs: Jobs,
    access: Access,
    grid_job: GridJob,
    show_panel: ShowPanel,
    workbench: Workbench | None = None,
) -> APIRouter:
    """Every route of ours. Add it with `app.include_router`.

    Args:
        grid_job: draws the tab's grids as well.
        show_panel: the state of a run as HTML, for the tab.
        workbench: the tab's open folders; without one there are no routes for them.
    """
    context = RouteContext(host, jobs, Guard(access), APIRouter(prefix=PREFIX, tags=["Train LoRA"]))
    add_run_routes(context)
    add_view_routes(context, show_panel)
    add_grid_routes(context, grid_job)
    if workbench:
        add_dataset_routes(context, workbench)
    return context.router
