"""What the tab asks for every second: how the run stands, ready to be shown."""

from __future__ import annotations

import threading
from typing import Any

from lib_trainer.status import Status
from lib_trainer.ui.status_view import buttons_of, show_parts
from lib_trainer.web.desk import Desk


def add_view_routes(desk: Desk) -> None:
    """The route that javascript/train_lora.js reads; programs read `/status`."""
    desk.reads("/view", View(desk).show, include_in_schema=False)


class View:
    """Shows each state of a run once, however many browsers ask for it."""

    def __init__(self, desk: Desk) -> None:
        self._jobs = desk.jobs
        self._lock = threading.Lock()
        self._version = ""
        self._shown: dict[str, Any] = {}

    def show(self, seen: str = "") -> dict[str, Any]:
        """All parts of the panel; nothing but the version where the caller has `seen` it."""
        # The version first, without what is costly to copy: most calls bring no news.
        version = self._jobs.version()
        if version == seen:
            return {"version": version}
        with self._lock:
            if version != self._version:
                self._shown = _shown(version, self._jobs.status())
                self._version = version
            return self._shown


def _shown(version: str, status: Status) -> dict[str, Any]:
    return {
        "version": version,
        "live": status.live,
        "state": status.state,
        "buttons": buttons_of(status),
        "saved": status.path.stem if status.path and not status.live else "",
        "parts": show_parts(status),
    }
