"""Routes for runs: start, follow, command, and the history."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fastapi import Response
from fastapi.responses import FileResponse
from pydantic import BaseModel, Field

from lib_trainer.config.recipe import Recipe
from lib_trainer.config.start import FILE_FIELDS, named_paths, without_folders
from lib_trainer.config.task import FOLDER_FIELDS, named_folders
from lib_trainer.errors import UserError
from lib_trainer.events import Command
from lib_trainer.jobs.history import SAMPLE_DIR, PastRun
from lib_trainer.jobs.loss_log import LOSS_FILE
from lib_trainer.jobs.status import Status
from lib_trainer.recipes.files import load_recipe, presets
from lib_trainer.web.auth import refuse, refuse_error
from lib_trainer.web.context import RouteContext

ACCEPTED, NOT_FOUND = 202, 404


class NewJob(BaseModel):
    """A run to start: the settings of a shipped recipe, those of `recipe` on top."""

    recipe: dict[str, Any] = {}
    preset: str = ""


class HowToStop(BaseModel):
    """With `save` the adapter is saved first."""

    save: bool = True


class HowToResume(BaseModel):
    """With `max_train_steps` a run that is done goes on to so many steps."""

    max_train_steps: int = Field(0, ge=0)


def add_run_routes(context: RouteContext) -> None:
    """Everything about runs."""
    routes = RunRoutes(context)
    context.reads("/status", routes.status, summary="The state of the run")
    context.reads("/presets", routes.presets, summary="The shipped recipes")
    context.reads("/jobs", routes.jobs, summary="All runs, newest first")
    context.reads("/jobs/{run_id}", routes.job, summary="One run, with its loss curve")
    context.reads("/jobs/{run_id}/losses.csv", routes.losses, summary="A line a step", response_class=Response)
    context.reads("/jobs/{run_id}/report", routes.report, summary="What was learned", response_class=Response)
    context.reads("/jobs/{run_id}/samples/{file}", routes.picture, summary="A test picture", response_class=Response)
    context.changes("/jobs", routes.start, status_code=ACCEPTED, summary="Start a run, or put it into the queue")
    context.changes("/jobs/{run_id}/stop", routes.stop, summary="Stop a run, or take it out of the queue")
    for command in ("pause", "resume", "save", "sample"):
        about = getattr(routes, command).__doc__
        context.changes(f"/jobs/{{run_id}}/{command}", getattr(routes, command), summary=about.rstrip("."))
    context.changes("/jobs/{run_id}", routes.forget, method="DELETE", summary="Remove a run from the history")


class RunRoutes:
    """Handlers. A `UserError` is answered with its sentence and hint."""

    def __init__(self, context: RouteContext) -> None:
        self._jobs, self._guard = context.jobs, context.guard

    def status(self) -> dict[str, Any]:
        return describe(self._jobs.status())

    def presets(self) -> dict[str, dict[str, Any]]:
        return {label: load_recipe(path).recipe.flat() for label, path in presets().items()}

    def jobs(self) -> list[dict[str, Any]]:
        return [_summary(past) for past in self._jobs.past()]

    def job(self, run_id: str) -> dict[str, Any]:
        past = self._past(run_id)
        # Paths of this machine are nobody's business over the network.
        recipe = {name: value for name, value in (past.recipe or {}).items() if name not in FOLDER_FIELDS}
        recipe.update({name: without_folders(str(recipe[name])) for name in FILE_FIELDS if name in recipe})
        return {**_summary(past), "recipe": recipe, "losses": self._jobs.history.losses(run_id)}

    def losses(self, run_id: str) -> FileResponse:
        return _file(self._folder(run_id) / LOSS_FILE, "text/csv")

    def report(self, run_id: str) -> FileResponse:
        return _file(self._folder(run_id) / f"{self._past(run_id).name}.report.html", "text/html")

    def picture(self, run_id: str, file: str) -> FileResponse:
        # Only files that the run has drawn: a name is compared, so "../" opens nothing.
        known = {name for _, name, _ in self._past(run_id).samples}
        if file not in known:
            refuse(NOT_FOUND, "There is no such picture.", "GET /jobs/ID lists its samples.")
        return _file(self._folder(run_id) / SAMPLE_DIR / file, "image/png")

    def start(self, new: NewJob) -> dict[str, str]:
        # `with_values` checks names and types; only folders need the guard as well.
        values = dict(new.recipe)
        for name in FOLDER_FIELDS:
            if values.get(name):
                values[name] = str(self._guard.folder(str(values[name])))
        for path in named_paths(values):
            self._guard.folder(path)
        try:
            return {"id": self._jobs.start(_base_recipe(new.preset).with_values(values))}
        except UserError as error:
            refuse_error(error)

    def stop(self, run_id: str, how: HowToStop = HowToStop()) -> dict[str, Any]:  # noqa: B008 - FastAPI reads the default
        return self._command(run_id, lambda: self._jobs.stop(how.save, run_id))

    def pause(self, run_id: str) -> dict[str, Any]:
        """Pause a run after the current step."""
        return self._command(run_id, lambda: self._jobs.pause(run_id))

    def resume(self, run_id: str, how: HowToResume = HowToResume()) -> dict[str, Any]:  # noqa: B008 - as above
        """Resume a run that is paused or ended early, or train one that is done for more steps."""
        past = self._past(run_id)
        if past.state == "paused":
            return self._command(run_id, lambda: self._jobs.resume(run_id))
        # What was allowed then may not be allowed now.
        recipe = past.recipe or {}
        for path in (*named_folders(recipe), *named_paths(recipe)):
            self._guard.folder(path)
        return self._command(run_id, lambda: self._jobs.resume_run(run_id, how.max_train_steps))

    def save(self, run_id: str) -> dict[str, Any]:
        """Save a copy after the current step."""
        return self._command(run_id, lambda: self._jobs.ask(Command.SAVE, run_id))

    def sample(self, run_id: str) -> dict[str, Any]:
        """Draw the test pictures after the current step."""
        return self._command(run_id, lambda: self._jobs.ask(Command.SAMPLE, run_id))

    def forget(self, run_id: str) -> dict[str, str]:
        self._past(run_id)
        try:
            self._jobs.forget(run_id)
        except UserError as error:
            refuse_error(error)
        return {"removed": run_id}

    def _command(self, run_id: str, act: Callable[[], Any]) -> dict[str, Any]:
        self._past(run_id)
        try:
            act()
        except UserError as error:
            refuse_error(error)
        return _summary(self._past(run_id))

    def _past(self, run_id: str) -> PastRun:
        try:
            return self._jobs.find(run_id)
        except UserError:
            refuse(NOT_FOUND, f"There is no run {run_id!r}.", "GET /jobs lists all runs.")

    def _folder(self, run_id: str) -> Path:
        return self._jobs.history.folder / self._past(run_id).id


def describe(status: Status) -> dict[str, Any]:
    """A status as JSON: all of it, but for paths of this machine."""
    values = asdict(status)
    # asdict keeps Path objects; a path of this machine is not for the network.
    samples = [{"step": s.step, "file": s.path.name, "prompt": s.prompt} for s in status.samples]
    return {**values, "live": status.live, "path": status.path.name if status.path else None, "samples": samples}


def _summary(past: PastRun) -> dict[str, Any]:
    return {name: value for name, value in asdict(past).items() if name != "recipe"}


def _base_recipe(preset: str) -> Recipe:
    if not preset:
        return Recipe()
    # By label as the page shows it, or by the file's name.
    files = {**presets(), **{path.stem: path for path in presets().values()}}
    if preset not in files:
        raise UserError(f"There is no recipe {preset!r}.", f"Choose one of {', '.join(presets())}.")
    return load_recipe(files[preset]).recipe


def _file(path: Path, kind: str) -> FileResponse:
    if not path.is_file():
        refuse(NOT_FOUND, f"There is no {path.name} yet.", "Try again after the first step.")
    return FileResponse(path, media_type=kind, headers={"Cache-Control": "private, no-cache"})
