"""One grid at a time, drawn in the background: the page watches it, stops it, and finds it again after a reload."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from lib_trainer.errors import UserError
from lib_trainer.host.base import Host
from lib_trainer.preview.drawing import Drawn, draw_cells
from lib_trainer.preview.grid_image import compose_grid, grid_infotext
from lib_trainer.preview.grid_spec import GridSpec
from lib_trainer.utils.background import start_background

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class GridStatus:
    """The state of a grid, or how it ended.

    Attributes:
        state: idle, waiting, drawing, done, stopped or failed.
        number: of the grid, counted since the program started: a picture of another grid is another picture.
        version: changes whenever anything else does, and is never the same for two grids.
        drawn: the pictures so far.
        seconds: since the first picture began.
        stopping: a stop was requested; the current picture is finished first.
        path: where the host keeps the grid; None where it keeps none, or not yet.
    """

    state: str = "idle"
    number: int = 0
    version: int = 0
    spec: GridSpec | None = None
    drawn: tuple[Drawn, ...] = ()
    seconds: float = 0.0
    stopping: bool = False
    path: Path | None = None
    error: str = ""
    hint: str = ""

    @property
    def live(self) -> bool:
        return self.state in ("waiting", "drawing")

    def find(self, row: int, column: int, number: int = 0) -> Drawn | None:
        """The picture in this row and column, if it is drawn; `number`: of the grid that is meant, 0 for any."""
        if number not in (0, self.number):
            return None
        return next((item for item in self.drawn if (item.cell.row, item.cell.column) == (row, column)), None)


class GridJob:
    """Draws grids on the host's generation thread. Every method may be called from any thread."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._changed = threading.Condition()
        self._status = GridStatus()

    def start(self, spec: GridSpec) -> None:
        """Begins a grid and returns at once. Raises UserError while another is being drawn."""
        with self._changed:
            if self._status.live:
                raise UserError("A grid is being drawn already.", "Wait for it, or stop it.")
            self._status = GridStatus("waiting", self._status.number + 1, self._status.version + 1, spec)
        start_background(partial(self._work, spec), self.stop, "train-lora-grid")

    def stop(self) -> None:
        """Ends the grid after the current picture; finished pictures stay."""
        with self._changed:
            if self._status.state == "waiting":
                # The thread that waits for the lock will find nothing to do.
                self._set(state="stopped")
            elif self._status.live:
                self._set(stopping=True)

    def grid_status(self) -> GridStatus:
        with self._changed:
            return self._status

    def wait(self, timeout: float | None = None) -> GridStatus:
        """Waits until nothing is being drawn, or for `timeout` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: not self._status.live, timeout)
            return self._status

    def _work(self, spec: GridSpec) -> None:
        try:
            self._host.run_exclusive(lambda: self._draw(spec))
        except UserError as error:
            self._end(spec, state="failed", error=error.message, hint=error.hint)
        except Exception as error:  # noqa: BLE001 - the traceback goes to the console, one line to the page
            _log.exception("Drawing a grid failed")
            text = f"{type(error).__name__}: {error}".strip().splitlines()[0]
            self._end(spec, state="failed", error=text, hint="The console holds the whole traceback.")

    def _draw(self, spec: GridSpec) -> None:
        with self._changed:
            # Stopped, or replaced by another grid, while it waited for the lock.
            if self._status.spec is not spec or not self._status.live:
                return
            self._set(state="drawing")
        begun = time.monotonic()
        try:
            for item in draw_cells(self._host, spec, lambda: self.grid_status().stopping):
                with self._changed:
                    self._set(drawn=(*self._status.drawn, item), seconds=time.monotonic() - begun)
        finally:
            # A stop or an error must not cost the pictures that are finished.
            path = save_grid(self._host, spec, self.grid_status().drawn)
            with self._changed:
                self._set(path=path, seconds=time.monotonic() - begun)
        whole = len(self.grid_status().drawn) == len(spec.cells)
        self._end(spec, state="done" if whole else "stopped")

    def _end(self, spec: GridSpec, **changes: object) -> None:
        with self._changed:
            if self._status.spec is spec:
                self._set(stopping=False, **changes)

    def _set(self, **changes: object) -> None:
        self._status = replace(self._status, version=self._status.version + 1, **changes)
        self._changed.notify_all()


def save_grid(host: Host, spec: GridSpec, drawn: Sequence[Drawn]) -> Path | None:
    """The grid of what is drawn, kept where the host keeps its own; None where it keeps none or nothing is drawn."""
    if not drawn:
        return None
    picture = compose_grid(spec, drawn, host.label_font())
    return host.save_grid(picture, grid_infotext(spec, drawn), drawn[0].cell.request)
