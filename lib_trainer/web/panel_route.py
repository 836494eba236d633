"""The route that the tab calls every second: the state of the run as HTML."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from lib_trainer.jobs.status import Status
from lib_trainer.web.context import RouteContext

# A run's status -> the parts of the panel as HTML. Handed in, because `web` does not import `ui`.
ShowPanel = Callable[[Status], dict[str, Any]]


def add_view_routes(context: RouteContext, show: ShowPanel) -> None:
    """The route that javascript/train_lora.js reads; programs read `/status`."""
    context.reads("/view", View(context, show).show, include_in_schema=False)


class View:
    """Shows each state of a run once, however many browsers ask for it."""

    def __init__(self, context: RouteContext, show: ShowPanel) -> None:
        self._host, self._jobs, self._show = context.host, context.jobs, show
        self._lock = threading.Lock()
        self._version = ""
        self._shown: dict[str, Any] = {}

    def show(self, seen: str = "") -> dict[str, Any]:
        """All parts of the panel; nothing but the version and the head's line where the caller has `seen` it.

        The head's line changes with the checkpoint that a person selects, which is no news of a run.
        """
        # The version first: most calls bring no news, and copying the losses costs more than the answer.
        version, head = self._jobs.version(), {"head": self._host.describe()}
        if version == seen:
            return {"version": version, **head}
        # Many browsers ask in the same second; one of them does the work.
        with self._lock:
            if version != self._version:
                self._shown = {"version": version, **self._show(self._jobs.status())}
                self._version = version
            return {**self._shown, **head}
