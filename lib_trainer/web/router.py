"""The routes under `/train-lora/v1`, for any FastAPI application."""

from __future__ import annotations

from fastapi import APIRouter

from lib_trainer.access import Access
from lib_trainer.host.base import Host
from lib_trainer.jobs import Jobs
from lib_trainer.preview.studio import Studio
from lib_trainer.web.desk import Desk
from lib_trainer.web.grids import add_grid_routes
from lib_trainer.web.guard import Guard
from lib_trainer.web.runs import add_run_routes
from lib_trainer.web.view import add_view_routes

PREFIX = "/train-lora/v1"


def make_router(host: Host, jobs: Jobs, access: Access, studio: Studio | None = None) -> APIRouter:
    """Every route of ours. Add it with `app.include_router`. `studio` draws the tab's grids as well."""
    desk = Desk(host, jobs, Guard(access), APIRouter(prefix=PREFIX, tags=["Train LoRA"]))
    add_run_routes(desk)
    add_view_routes(desk)
    add_grid_routes(desk, studio or Studio(host))
    return desk.router
