"""Routes that the workbench reads folders by. They change nothing: changes go through the tab's own events."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from fastapi import Response

from lib_trainer.errors import UserError
from lib_trainer.web.auth import refuse
from lib_trainer.web.browse import browse
from lib_trainer.web.context import RouteContext
from lib_trainer.workbench.folders import Workbench

if TYPE_CHECKING:
    from lib_trainer.workbench.open_folder import OpenFolder

_NOT_FOUND = 404
# A thumbnail's address is the same after the picture was changed.
_HEADERS = {"Cache-Control": "private, max-age=60", "X-Content-Type-Options": "nosniff"}


def add_dataset_routes(context: RouteContext, workbench: Workbench) -> None:
    """Only folders that a page has opened can be read, by the key that the page was given; others by name alone."""
    routes = DatasetRoutes(workbench)
    context.reads("/folders", lambda path="": _folders(context, path), include_in_schema=False)
    hidden = {"include_in_schema": False}
    context.reads("/datasets/{key}/pictures", routes.pictures, **hidden)
    context.reads("/datasets/{key}/pictures/{number}", routes.thumbnail, response_class=Response, **hidden)
    context.reads("/datasets/{key}/findings", routes.findings, **hidden)
    context.reads("/datasets/{key}/captioning", routes.captioning, **hidden)
    context.reads("/datasets/{key}/tags", routes.tags, **hidden)


def _folders(context: RouteContext, path: str) -> dict[str, Any]:
    try:
        return browse(context.guard.access, path)
    except UserError as error:
        refuse(_NOT_FOUND, error.message, error.hint)


class DatasetRoutes:
    """Handlers."""

    def __init__(self, workbench: Workbench) -> None:
        self._workbench = workbench

    def pictures(self, key: str, start: int = 0, count: int = 60, tag: str = "", numbers: str = "") -> dict[str, Any]:
        """`numbers` lists places between commas; "" is all."""
        listed = [int(number) for number in numbers.split(",") if number.isdecimal()] if numbers else None
        return self._answer(key, lambda folder: folder.page(start, count, tag, listed))

    def thumbnail(self, key: str, number: int) -> Response:
        data = self._answer(key, lambda folder: folder.thumbnail(number))
        return Response(data, media_type="image/jpeg", headers=_HEADERS)

    def findings(self, key: str) -> dict[str, Any]:
        return self._answer(key, lambda folder: folder.checking.describe())

    def tags(self, key: str) -> list[dict[str, Any]]:
        return self._answer(key, lambda folder: folder.tags())

    def captioning(self, key: str) -> dict[str, Any]:
        """What can caption, and how far a captioning is."""
        state = self._answer(key, lambda _folder: self._workbench.commands(key).auto.state)
        return {"captioners": [one.label for one in self._workbench.captioners()], **asdict(state)}

    def _answer(self, key: str, ask: Callable[[OpenFolder], Any]) -> Any:
        try:
            return ask(self._workbench.get(key))
        except UserError as error:
            refuse(_NOT_FOUND, error.message, error.hint)
