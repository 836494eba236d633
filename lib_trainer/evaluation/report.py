"""What a run has learned, as HTML: the meter for the page, and a report of its own beside the run."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from lib_trainer.evaluation.constants import DAMAGED_DRIFT, MEMORISED_GAP
from lib_trainer.events import Evaluated
from lib_trainer.utils.atomic_file import write_atomically

if TYPE_CHECKING:
    from lib_trainer.evaluation.likeness import Likeness

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 640, 150, 46, 20, 8
# The meters are full at twice what is too much.
_FULL_DRIFT = 2 * DAMAGED_DRIFT
_NAMED_PICTURES, _NAMED_ODD, _LISTED_PICTURES = 3, 8, 60

Points = Sequence[tuple[float, float]]

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 44em; margin: 2em auto; color-scheme: light dark; }
svg, img { width: 100%; height: auto; } text { fill: currentColor; font-size: 11px; opacity: 0.7; }
line { stroke: currentColor; opacity: 0.2; } polyline { fill: none; stroke-width: 2; }
.held { stroke: #d9822b; } .trained { stroke: #4f7cac; } .drift { stroke: #a04a8a; stroke-dasharray: 4 3; }
table { border-collapse: collapse; } td, th { text-align: right; padding: 2px 9px; font-variant-numeric: tabular-nums; }
"""


def show_meter(found: Sequence[Evaluated], last: Evaluated | None = None) -> str:
    """Verdict, meters and curves; "" before the first evaluation.

    Args:
        last: the final verdict; the last of `found` if None.
    """
    if not found:
        return ""
    said = last or found[-1]
    kind = said.verdict.replace(" ", "-")
    meters = _meter("learned", said.learned, f"{said.learned:.0%}")
    meters += _meter("drift", said.drift / _FULL_DRIFT, f"{said.drift:.2f}")
    if said.memorised is not None:
        meters += _meter("memorised", said.memorised / (2 * MEMORISED_GAP), f"{said.memorised:+.0%}")
    best = f"<span>best: step {said.best_step} at {said.best_strength:g}</span>"
    return (
        f'<div class="train-lora-meter {kind}"><p><b>{escape(said.verdict.capitalize())}</b> {escape(said.advice)}</p>'
        f'<p class="meters">{meters}{best}</p>{_curves(found)}{show_odd_pictures(found[-1])}</div>'
    )


def write_report(
    path: Path,
    name: str,
    found: Sequence[Evaluated],
    last: Evaluated,
    png: bytes = b"",
    likenesses: Sequence[Likeness] = (),
) -> None:
    """Writes the report, whole or not at all. Raises UserError when it cannot be written.

    Args:
        png: pictures of the last and the best step; b"" without any.
        likenesses: of these pictures, where the host has a CLIP.
    """
    parts = [
        f"<h1>{escape(name)}</h1><p><b>{escape(last.verdict.capitalize())}.</b> {escape(last.advice)}</p>",
        f"<h2>Over the run</h2>{_curves(found)}",
        show_odd_pictures(found[-1]),
        # In the page itself: the report is one file that can be sent to somebody.
        f'<h2>Pictures</h2><img alt="" src="data:image/png;base64,{b64encode(png).decode()}">' if png else "",
        _likenesses(likenesses),
        _details(found, last),
        "<p><small>The limits behind the verdict come from one small model: they are hints.</small></p>",
    ]
    page = f"<!doctype html><meta charset='utf-8'><title>{escape(name)}</title><style>{_STYLE}</style>{''.join(parts)}"
    write_atomically(path, page.encode())


def _likenesses(found: Sequence[Likeness]) -> str:
    """A row a drawn picture; "" where the host has no CLIP."""
    if not found:
        return ""
    rows = "".join(
        f"<tr><td>{escape(item.label)}</td><td>{item.mean:.2f}</td>"
        f"<td>{item.nearest[1]:.2f}: {escape(item.nearest[0])}</td></tr>"
        for item in found
    )
    about = "Likeness to the training pictures, by the CLIP on this disk: 1 is the same picture."
    head = "<th>drawn</th><th>on average</th><th>most like</th>"
    return f"<p>{about}</p><table><tr>{head}</tr>{rows}</table>"


def show_details(found: Sequence[Evaluated], last: Evaluated | None = None) -> str:
    """What the report has besides the meter, folded; "" before the first evaluation."""
    if not found:
        return ""
    return f'<details class="train-lora-report"><summary>Report</summary>{_details(found, last or found[-1])}</details>'


def _details(found: Sequence[Evaluated], last: Evaluated) -> str:
    strengths = f"<h2>Over strength, at step {last.step}</h2>{_chart([('held', last.curve)], 'strength')}"
    return f"{strengths}<h2>Figures</h2>{_table(found)}{_pictures(last)}{_left(found)}"


def show_odd_pictures(found: Evaluated) -> str:
    """Pictures that learn far less, or far sooner, than the others, with what to look at; "" where there are none."""
    kinds = (
        ("Hardly learned", found.unlearned, "Look at their captions, and whether they show what the others show."),
        ("Learned at once", found.at_once, "Duplicates, or pictures with little on them."),
    )
    text = ""
    for kind, names, hint in kinds:
        if names:
            shown = ", ".join(escape(name) for name in names[:_NAMED_ODD])
            text += f"<p>{kind}: {shown}{' …' if len(names) > _NAMED_ODD else ''}. {hint}</p>"
    return text


def _meter(label: str, share: float, text: str) -> str:
    width = 100 * min(1.0, max(0.0, share))
    return f'<span class="meter">{label} <i><u style="width:{width:.0f}%"></u></i> {text}</span>'


def _curves(found: Sequence[Evaluated]) -> str:
    """L, T and E over the steps; "" until there are two evaluations."""
    if len(found) < 2:
        return ""
    held_out = [(item.step, item.learned) for item in found if item.memorised is not None]
    lines = [("held", held_out)] if held_out else []
    lines += [("trained", [(item.step, item.trained) for item in found])]
    lines += [("drift", [(item.step, item.drift) for item in found])]
    legend = "".join(f"<span class='{kind}'>{text}</span>" for kind, text in _LEGEND if kind in dict(lines))
    return f'{_chart(lines, "step")}<p class="legend">{legend}</p>'


_LEGEND = (
    ("held", "— loss gone on held-out pictures "),
    ("trained", "— loss gone on training pictures "),
    ("drift", "┄ drift of unrelated prompts"),
)


def _chart(lines: Sequence[tuple[str, Points]], across: str) -> str:
    """Lines over a common frame, as SVG."""
    points = [point for _, line in lines for point in line]
    first, last = min(x for x, _ in points), max(x for x, _ in points)
    low, high = min(0.0, *(y for _, y in points)), max(0.1, *(y for _, y in points))
    width, height = _WIDTH - _LEFT - 8, _HEIGHT - _TOP - _BOTTOM

    def place(x: float, y: float) -> tuple[float, float]:
        return _LEFT + (x - first) / (last - first or 1) * width, _TOP + (high - y) / (high - low) * height

    drawn = ""
    for y in (low, (low + high) / 2, high):
        _, top = place(first, y)
        drawn += f'<line x1="{_LEFT}" x2="{_WIDTH - 8}" y1="{top:.1f}" y2="{top:.1f}"/>'
        drawn += f'<text x="{_LEFT - 6}" y="{top + 4:.1f}" text-anchor="end">{y:.2g}</text>'
    for kind, line in lines:
        corners = " ".join("{:.1f},{:.1f}".format(*place(x, y)) for x, y in line)
        drawn += f'<polyline class="{kind}" points="{corners}"/>'
    drawn += f'<text x="{_LEFT}" y="{_HEIGHT - 4}">{across} {first:g}</text>'
    drawn += f'<text x="{_WIDTH - 8}" y="{_HEIGHT - 4}" text-anchor="end">{across} {last:g}</text>'
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="What is learned over {across}s">{drawn}</svg>'


def _table(found: Sequence[Evaluated]) -> str:
    head = ("step", "learned", "training", "drift", "memorised", "trigger", "s*", "J", "best strength")
    rows = [
        (
            f"{item.step}", f"{item.learned:.1%}", f"{item.trained:.1%}", f"{item.drift:.2f}", _share(item.memorised),
            _share(item.bound), f"{item.least_loss_strength:.2f}", f"{item.score:.3f}", f"{item.strength:g}",
        )
        for item in found
    ]  # fmt: skip
    lines = ["<tr>" + "".join(f"<th>{text}</th>" for text in head) + "</tr>"]
    lines += ["<tr>" + "".join(f"<td>{text}</td>" for text in row) + "</tr>" for row in rows]
    return f"<table>{''.join(lines)}</table>"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:+.1%}"


def _pictures(found: Evaluated) -> str:
    """The measured pictures of which most and least is learned."""
    order = sorted(found.by_picture, key=found.by_picture.__getitem__)
    if len(order) < 2:
        return ""
    names = lambda chosen: ", ".join(f"{escape(name)} ({found.by_picture[name]:.0%})" for name in chosen)  # noqa: E731
    hardest, easiest = order[:_NAMED_PICTURES], order[::-1][:_NAMED_PICTURES]
    return f"<h2>Pictures</h2><p>Least learned: {names(hardest)}.<br>Most learned: {names(easiest)}.</p>"


def _left(found: Sequence[Evaluated]) -> str:
    """What is left of each picture's loss, over the run; the most first."""
    windows = [item for item in found if item.left]
    if not windows:
        return ""
    names = sorted(windows[-1].left, key=windows[-1].left.__getitem__, reverse=True)[:_LISTED_PICTURES]
    head = "<th>picture</th>" + "".join(f"<th>{item.step}</th>" for item in windows)
    rows = ""
    for name in names:
        cells = "".join(f"<td>{_plain_share(item.left.get(name))}</td>" for item in windows)
        rows += f"<tr><td>{escape(name)}</td>{cells}</tr>"
    about = "What is left of each picture's loss before each evaluation; 100% is the usual loss at the start."
    return f"<h2>Every picture</h2><p>{about}</p><table><tr>{head}</tr>{rows}</table>"


def _plain_share(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"
