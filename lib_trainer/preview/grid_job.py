"""One grid at a time, drawn beside the page: it is watched, stopped, and found again after a reload."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lib_trainer.errors import UserError
from lib_trainer.host.base import Host
from lib_trainer.preview.drawing import Drawn, draw_cells
from lib_trainer.preview.grid_image import compose_grid, grid_infotext
from lib_trainer.preview.grid_spec import GridSpec

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class GridStatus:
    """How a grid stands, or how it ended.

    Attributes:
        state: idle, waiting, drawing, done, stopped or failed.
        version: changes whenever anything else does, and is never the same for two grids.
        drawn: the pictures so far.
        seconds: since the first was begun.
        stopping: a stop was asked for; the picture under way is finished first.
        path: where the host keeps the grid; None where it keeps none, or not yet.
    """

    state: str = "idle"
    version: int = 0
    plan: GridSpec | None = None
    drawn: tuple[Drawn, ...] = ()
    seconds: float = 0.0
    stopping: bool = False
    path: Path | None = None
    error: str = ""
    hint: str = ""

    @property
    def live(self) -> bool:
        return self.state in ("waiting", "drawing")

    def find(self, row: int, column: int) -> Drawn | None:
        """The picture at a place, if it is drawn."""
        return next((item for item in self.drawn if (item.cell.row, item.cell.column) == (row, column)), None)


class GridJob:
    """Draws grids on the host's generation thread. Every method may be called from any thread."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._changed = threading.Condition()
        self._sheet = GridStatus()

    def start(self, plan: GridSpec) -> None:
        """Begins a grid and returns at once. Raises UserError while another is being drawn."""
        with self._changed:
            if self._sheet.live:
                raise UserError("A grid is being drawn already.", "Wait for it, or stop it.")
            self._sheet = GridStatus("waiting", self._sheet.version + 1, plan)
        threading.Thread(target=self._work, args=(plan,), name="train-lora-grid", daemon=True).start()

    def stop(self) -> None:
        """Ends the grid after the picture under way; what is drawn stays."""
        with self._changed:
            if self._sheet.state == "waiting":
                # The turn that is still waited for will find nothing to do.
                self._set(state="stopped")
            elif self._sheet.live:
                self._set(stopping=True)

    def grid_status(self) -> GridStatus:
        with self._changed:
            return self._sheet

    def wait(self, timeout: float | None = None) -> GridStatus:
        """Waits until nothing is being drawn, or for `timeout` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: not self._sheet.live, timeout)
            return self._sheet

    def _work(self, plan: GridSpec) -> None:
        try:
            self._host.run_exclusive(lambda: self._draw(plan))
        except UserError as error:
            self._end(plan, state="failed", error=error.message, hint=error.hint)
        except Exception as error:  # noqa: BLE001 - whatever it was, its traceback is kept and the person is told
            _log.exception("Drawing a grid failed")
            text = f"{type(error).__name__}: {error}".strip().splitlines()[0]
            self._end(plan, state="failed", error=text, hint="The console holds the whole traceback.")

    def _draw(self, plan: GridSpec) -> None:
        with self._changed:
            if self._sheet.plan is not plan or not self._sheet.live:
                return
            self._set(state="drawing")
        begun = time.monotonic()
        try:
            for item in draw_cells(self._host, plan, lambda: self.grid_status().stopping):
                with self._changed:
                    self._set(drawn=(*self._sheet.drawn, item), seconds=time.monotonic() - begun)
        finally:
            # However it ends, what is drawn is kept.
            path = save_grid(self._host, plan, self.grid_status().drawn)
            with self._changed:
                self._set(path=path, seconds=time.monotonic() - begun)
        whole = len(self.grid_status().drawn) == len(plan.cells)
        self._end(plan, state="done" if whole else "stopped")

    def _end(self, plan: GridSpec, **changes: object) -> None:
        with self._changed:
            if self._sheet.plan is plan:
                self._set(stopping=False, **changes)

    def _set(self, **changes: object) -> None:
        self._sheet = replace(self._sheet, version=self._sheet.version + 1, **changes)
        self._changed.notify_all()


def save_grid(host: Host, plan: GridSpec, drawn: Sequence[Drawn]) -> Path | None:
    """The grid of what is drawn, kept where the host keeps its own; None where it keeps none or nothing is drawn."""
    if not drawn:
        return None
    picture = compose_grid(plan, drawn, host.label_font())
    return host.save_grid(picture, grid_infotext(plan, drawn), drawn[0].cell.request)
