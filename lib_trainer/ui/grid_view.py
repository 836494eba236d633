"""A grid as HTML: labelled axes, small pictures that fill in one by one, and its progress."""

from __future__ import annotations

from html import escape

from lib_trainer.preview.drawing import Drawn
from lib_trainer.preview.grid_job import GridStatus
from lib_trainer.preview.grid_spec import GridSpec
from lib_trainer.ui.elements import progress_bar, show_duration, thumbnail

THUMBNAIL_PX = 192
# A few columns do not fill a wide page with pictures that are larger than they were made.
LABEL_PX, COLUMN_PX = 88, 204
EMPTY = '<div class="train-lora-grid idle" data-live="0"></div>'
CHANGE_HELP = (
    "Δ is how much the picture differs from strength 0 in its row: the mean over all pixels, 100 % from black to white."
    " A large change is not good in itself."
)
_STATES = {
    "waiting": "Waiting for the current generation to finish",
    "drawing": "Drawing",
    "done": "Done",
    "stopped": "Stopped",
    "failed": "Failed",
}


def show_grid(grid_status: GridStatus | None = None, thumbnails: Thumbnails | None = None) -> str:
    """The whole grid; an empty element before there is one."""
    if grid_status is None or grid_status.spec is None:
        return EMPTY
    error = ""
    if grid_status.error:
        error = f'<div class="train-lora-error"><b>{escape(grid_status.error)}</b> {escape(grid_status.hint)}</div>'
    place = f"<small>Saved as {escape(str(grid_status.path))}</small>" if grid_status.path else ""
    # Without a picture at strength 0 there is nothing to compare with.
    compared = any(item.change is not None for item in grid_status.drawn)
    note = f"<small>{CHANGE_HELP}</small>" if compared else ""
    table = _table(grid_status.spec, grid_status, thumbnails or Thumbnails())
    return (
        f'<div class="train-lora-grid" data-live="{int(grid_status.live)}" data-version="{grid_status.version}">'
        f'{_head(grid_status)}{error}<div class="axes">{table}</div>{note}{place}</div>'
    )


class Thumbnails:
    """Small versions of the pictures of one grid, made once each."""

    def __init__(self) -> None:
        self._plan: GridSpec | None = None
        self._made: dict[tuple[int, int], str] = {}

    def of(self, plan: GridSpec, item: Drawn) -> str:
        """The picture's data address; each is encoded once."""
        # Each grid has its own spec object, so identity tells a new grid from the last.
        if self._plan is not plan:
            self._plan, self._made = plan, {}
        place = item.cell.row, item.cell.column
        if place not in self._made:
            self._made[place] = thumbnail(item.picture, THUMBNAIL_PX)
        return self._made[place]


def _head(grid_status: GridStatus) -> str:
    done, total = len(grid_status.drawn), len(grid_status.spec.cells)
    parts = [f"{done} of {total} pictures"]
    if done:
        pace = grid_status.seconds / done
        parts.append(f"{pace:.1f} s each")
        if grid_status.live:
            parts.append(f"{show_duration(pace * (total - done))} left")
    state = "Stopping after this picture" if grid_status.stopping else _STATES[grid_status.state]
    bar = progress_bar(done, total) if grid_status.live else ""
    said = " · ".join([state, *parts])
    return f'<div class="head"><b>{escape(grid_status.spec.title)}</b><span>{escape(said)}</span></div>{bar}'


def _table(plan: GridSpec, grid_status: GridStatus, thumbnails: Thumbnails) -> str:
    # `jeff → 0 0.5 1` leaves more room for pictures than the name above every column.
    common, short = _split(plan.column_labels)
    heads = "".join(f"<th>{escape(label)}</th>" for label in short)
    # Found by position: strength 0 is drawn first wherever its column is, and a stopped grid has gaps.
    drawn = {(item.cell.row, item.cell.column): item for item in grid_status.drawn}
    rows, columns = [], range(len(plan.column_labels))
    for row, label in enumerate(plan.row_labels):
        cells = "".join(_cell(grid_status, drawn.get((row, column)), thumbnails) for column in columns)
        rows.append(f'<tr><th title="{escape(label, quote=True)}"><span>{escape(label)}</span></th>{cells}</tr>')
    head = f"<thead><tr><th>{escape(common)}</th>{heads}</tr></thead>"
    width_px = LABEL_PX + COLUMN_PX * len(columns)
    return f'<table style="max-width:{width_px}px">{head}<tbody>{"".join(rows)}</tbody></table>'


def _split(labels: tuple[str, ...]) -> tuple[str, list[str]]:
    """What all labels begin with, and the rest of each: `jeff →` and `0`, `0.5` …"""
    parts = [label.rpartition(" ") for label in labels]
    # Names may hold spaces; only the last part of a label is the strength.
    starts = {start for start, _, _ in parts}
    if len(starts) > 1 or starts == {""}:
        return "", list(labels)
    return f"{starts.pop()} →", [end for _, _, end in parts]


def _cell(grid_status: GridStatus, item: Drawn | None, thumbnails: Thumbnails) -> str:
    if item is None:
        return '<td><span class="missing"></span></td>'
    title = f"{item.cell.request.prompt}\nseed {item.cell.request.seed}"
    change = "" if item.change is None else f"<small>Δ {item.change:.1f} %</small>"
    # With the grid's number: what is clicked may belong to a grid that another page has replaced.
    place = f"{grid_status.number} {item.cell.row} {item.cell.column}"
    return (
        f'<td><button type="button" data-cell="{place}" title="{escape(title, quote=True)}">'
        f'<img alt="" src="{thumbnails.of(grid_status.spec, item)}"/></button>{change}</td>'
    )
