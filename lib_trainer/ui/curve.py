"""The loss curve as inline SVG, which every gradio shows alike."""

from __future__ import annotations

from collections.abc import Sequence

WIDTH, HEIGHT = 640, 170
LEFT, RIGHT, TOP, BOTTOM = 46, 8, 8, 20
DRAWN_POINTS = 400
# A few wild steps must not press the rest flat: they leave the frame instead.
SHOWN_SHARE = 0.98

Points = Sequence[tuple[int, float]]


def draw_curve(losses: Points) -> str:
    """The raw and the smoothed loss over the steps. Empty until there are two points."""
    if len(losses) < 2:
        return ""
    low, high = _range([loss for _, loss in losses])
    first, last = losses[0][0], losses[-1][0]

    def place(point: tuple[int, float]) -> str:
        x = LEFT + (point[0] - first) / (last - first) * (WIDTH - LEFT - RIGHT)
        y = TOP + (high - point[1]) / (high - low) * (HEIGHT - TOP - BOTTOM)
        return f"{x:.1f},{min(max(y, -HEIGHT), 2 * HEIGHT):.1f}"

    lines = "".join(
        f'<polyline class="{kind}" points="{" ".join(place(point) for point in thin(points))}"/>'
        for kind, points in (("raw", losses), ("smooth", smooth(losses)))
    )
    return (
        f'<figure class="train-lora-curve"><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Loss over steps">'
        f'<clipPath id="train-lora-clip"><rect x="{LEFT}" y="{TOP}" width="{WIDTH - LEFT - RIGHT}"'
        f' height="{HEIGHT - TOP - BOTTOM}"/></clipPath>'
        f'{_axes(low, high, first, last)}<g clip-path="url(#train-lora-clip)">{lines}</g></svg>'
        "<figcaption>loss: <b>smoothed</b>, and <i>of each step</i></figcaption></figure>"
    )


def smooth(points: Points) -> list[tuple[int, float]]:
    """Exponential mean over about a tenth of the points, free of the pull towards the first one."""
    keep = 1 - 1 / max(2.0, min(50.0, len(points) / 10))
    mean, weight, result = 0.0, 0.0, []
    for step, loss in points:
        mean, weight = keep * mean + (1 - keep) * loss, keep * weight + (1 - keep)
        result.append((step, mean / weight))
    return result


def thin(points: Points) -> Points:
    """Evenly chosen points, few enough to send every second; the last one stays."""
    stride = -(-len(points) // DRAWN_POINTS)
    return points[(len(points) - 1) % stride :: stride]


def _range(values: list[float]) -> tuple[float, float]:
    ordered = sorted(values)
    spare = int(len(ordered) * (1 - SHOWN_SHARE) / 2)
    low, high = ordered[spare], ordered[-1 - spare]
    margin = (high - low) * 0.08 or abs(high) * 0.1 or 1.0
    return low - margin, high + margin


def _axes(low: float, high: float, first: int, last: int) -> str:
    parts = []
    for share in (0.1, 0.5, 0.9):
        y = TOP + (1 - share) * (HEIGHT - TOP - BOTTOM)
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{low + share * (high - low):.3g}</text>'
        )
    parts.append(f'<text x="{LEFT}" y="{HEIGHT - 4}">step {first}</text>')
    parts.append(f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 4}" text-anchor="end">step {last}</text>')
    return "".join(parts)
