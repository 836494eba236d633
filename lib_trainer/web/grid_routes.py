"""Routes for grids: list the LoRAs, start a grid, follow it, fetch its pictures, choose one."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import Response
from pydantic import BaseModel

from lib_trainer.errors import UserError
from lib_trainer.preview.choose import choose
from lib_trainer.preview.drawing import Drawn, check_names
from lib_trainer.preview.grid_image import compose_grid, grid_infotext
from lib_trainer.preview.grid_job import GridJob, GridStatus
from lib_trainer.preview.grid_request import PAIR, STEPS, STRENGTHS, GridRequest, usual_cfg
from lib_trainer.utils.png import png_bytes
from lib_trainer.web.auth import refuse, refuse_error
from lib_trainer.web.context import RouteContext

ACCEPTED, NOT_FOUND = 202, 404
_MODES = {"strengths": STRENGTHS, "steps": STEPS, "pair": PAIR}


class NewGrid(BaseModel):
    """A grid to draw. Strengths are a list like "0, 0.5, 1" or a range like "0:1:0.25", seeds a list; sizes in pixels.

    `mode`: strengths of one LoRA, the saved steps of its run, or a pair of two. `width_px`, `height_px` and `cfg_scale`
    are the loaded checkpoint's usual ones where they are left out.
    """

    lora: str = ""
    prompts: list[str]
    mode: Literal["strengths", "steps", "pair"] = "strengths"
    strengths: str = ""
    other: str = ""
    other_strengths: str = "0.4, 0.6, 0.8"
    negative_prompt: str = ""
    width_px: int = 0
    height_px: int = 0
    steps: int = 20
    cfg_scale: float = 0
    sampler: str = ""
    scheduler: str = ""
    seeds: str = "1"


def add_grid_routes(context: RouteContext, grid_job: GridJob) -> None:
    """Everything about grids."""
    routes = GridRoutes(context, grid_job)
    context.reads("/loras", routes.loras, summary="The LoRA files, and why one does not fit")
    context.reads("/grid", routes.grid, summary="The state of the grid")
    context.reads("/grid/picture", routes.picture, summary="The grid as one PNG", response_class=Response)
    context.reads("/grid/cells/{row}/{column}", routes.cell, summary="One picture as a PNG", response_class=Response)
    context.changes("/grid", routes.start, status_code=ACCEPTED, summary="Draw a grid")
    context.changes("/grid/stop", routes.stop, summary="Stop the grid after the current picture")
    context.changes(
        "/grid/cells/{row}/{column}/choose", routes.choose, summary="Put a picture and its strength on the card"
    )


class GridRoutes:
    """Handlers. A `UserError` is answered with its sentence and hint."""

    def __init__(self, context: RouteContext, grid_job: GridJob) -> None:
        self._host, self._jobs, self._grid_job = context.host, context.jobs, grid_job

    def loras(self) -> list[dict[str, Any]]:
        return [
            {
                "name": lora.name,
                "aliases": lora.aliases,
                "family": lora.family.key if lora.family else None,
                # The name in the JSON since the first release.
                "words": lora.trigger_words,
                "strength": lora.strength,
                "steps": lora.steps,
                "problem": lora.problem,
            }
            for lora in self._host.loras(refresh=True)
        ]

    def grid(self) -> dict[str, Any]:
        return describe(self._grid_job.grid_status())

    def picture(self) -> Response:
        grid_status = self._grid_job.grid_status()
        if not grid_status.drawn:
            refuse(NOT_FOUND, "Nothing is drawn.", "Draw a grid first.")
        # Composed anew for each call: a grid that is still drawn has gaps.
        picture = compose_grid(grid_status.spec, grid_status.drawn, self._host.label_font())
        return Response(png_bytes(picture, grid_infotext(grid_status.spec, grid_status.drawn)), media_type="image/png")

    def cell(self, row: int, column: int, grid: int = 0) -> Response:
        item = self._find(row, column, grid)
        return Response(png_bytes(item.picture, item.infotext), media_type="image/png")

    def start(self, new: NewGrid) -> dict[str, Any]:
        try:
            self._refuse_during_run()
            plan = self._given(new).grid_spec(self._host.loras())
            # Before anything starts, so that the answer is 409 and not a failed grid.
            check_names(self._host, plan)
            self._grid_job.start(plan)
        except UserError as error:
            refuse_error(error)
        return describe(self._grid_job.grid_status())

    def stop(self) -> dict[str, Any]:
        self._grid_job.stop()
        return describe(self._grid_job.grid_status())

    def choose(self, row: int, column: int, grid: int = 0) -> dict[str, str]:
        item = self._find(row, column, grid)
        try:
            self._refuse_during_run()
            return {"done": choose(self._host, item)}
        except UserError as error:
            refuse_error(error)

    def _find(self, row: int, column: int, grid: int) -> Drawn:
        item = self._grid_job.grid_status().find(row, column, grid)
        if item is None:
            which = f" of grid {grid}" if grid else ""
            refuse(NOT_FOUND, f"There is no picture in row {row}, column {column}{which}.", "GET /grid lists them.")
        return item

    def _given(self, new: NewGrid) -> GridRequest:
        # Opening the checkpoint for its size takes time: only where the caller left one out.
        side = 0 if new.width_px and new.height_px else self._host.drawing_size_px()
        return GridRequest(
            mode=_MODES[new.mode], lora=new.lora, strengths=new.strengths, other=new.other,
            other_strengths=new.other_strengths, prompt="\n".join(new.prompts), negative=new.negative_prompt,
            width=new.width_px or side, height=new.height_px or side, steps=new.steps,
            cfg=new.cfg_scale or usual_cfg(self._host.drawing_family()),
            sampler=new.sampler, schedule=new.scheduler, seeds=new.seeds,
        )  # fmt: skip

    def _refuse_during_run(self) -> None:
        if self._jobs.status().live:
            raise UserError("The checkpoint is being trained on.", "Pictures can be made when the run is over.")


def describe(grid_status: GridStatus) -> dict[str, Any]:
    """A grid as JSON: all of it, but for paths of this machine and the pictures themselves."""
    plan = grid_status.spec
    return {
        "state": grid_status.state,
        "live": grid_status.live,
        "number": grid_status.number,
        "version": grid_status.version,
        "title": plan.title if plan else "",
        "rows": plan.row_labels if plan else (),
        "columns": plan.column_labels if plan else (),
        "total": len(plan.cells) if plan else 0,
        "seconds": grid_status.seconds,
        "stopping": grid_status.stopping,
        "file": grid_status.path.name if grid_status.path else None,
        "error": grid_status.error,
        "hint": grid_status.hint,
        "cells": [_describe_cell(item) for item in grid_status.drawn],
    }


def _describe_cell(item: Drawn) -> dict[str, Any]:
    return {
        "row": item.cell.row,
        "column": item.cell.column,
        "loras": [{"name": lora.name, "strength": lora.strength} for lora in item.cell.loras],
        "prompt": item.cell.request.prompt,
        "seed": item.cell.request.seed,
        "change_percent": item.change,
        "infotext": item.infotext,
    }
