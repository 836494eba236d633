"""What the routes share, and how a route is added."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Depends

from lib_trainer.host.base import Host
from lib_trainer.jobs.queue import Jobs
from lib_trainer.web.auth import Guard


@dataclass(frozen=True)
class RouteContext:
    """What the routes share."""

    host: Host
    jobs: Jobs
    guard: Guard
    router: APIRouter

    def reads(self, path: str, answer: Callable[..., Any], **about: Any) -> None:
        """Adds a route that changes nothing."""
        self.router.add_api_route(path, answer, methods=["GET"], dependencies=[Depends(self.guard.reads)], **about)

    def changes(self, path: str, answer: Callable[..., Any], method: str = "POST", **about: Any) -> None:
        """Adds a route that changes something: only where the program was started with `--api`."""
        # A route that does not exist cannot be attacked.
        if self.guard.access.changes:
            guarded = [Depends(self.guard.changes)]
            self.router.add_api_route(path, answer, methods=[method], dependencies=guarded, **about)
