"""The loss curve as inline SVG, which every gradio shows alike."""

from __future__ import annotations

from collections.abc import Sequence

WIDTH, HEIGHT = 640, 170
LEFT, RIGHT, TOP, BOTTOM = 46, 8, 8, 20
DRAWN_POINTS = 320
# A few extreme steps would flatten the rest of the curve: they leave the frame instead.
SHOWN_SHARE = 0.98

Points = Sequence[tuple[int, float]]


def draw_curve(losses: Points, rates: Points = ()) -> str:
    """The raw and the smoothed loss over the steps, and behind them the learning rate; "" until there are two points.

    `data-points` holds what is drawn, for javascript/train_lora.js to say what lies under the pointer.
    """
    # One point has no line.
    if len(losses) < 2:
        return ""
    low, high = _range([loss for _, loss in losses])
    # Thinned losses need not start at step 1.
    first, last = losses[0][0], losses[-1][0]
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def line(kind: str, points: Points, bottom: float, top: float) -> str:
        positions = []
        for step, value in points:
            x = LEFT + (step - first) / (last - first) * width
            y = TOP + (top - value) / (top - bottom) * height
            # The clip path cuts it at the frame; far outside, some browsers draw nothing at all.
            positions.append(f"{x:.1f},{min(max(y, -HEIGHT), 2 * HEIGHT):.1f}")
        return f'<polyline class="{kind}" points="{" ".join(positions)}"/>'

    # The same stride for all three, so that `_data` can pair them by step.
    raw, smoothed, rates = thin(losses), thin(smooth(losses)), thin(rates)
    fastest = max((rate for _, rate in rates), default=0.0)
    lines = line("rate", rates, 0.0, fastest * 1.04) if fastest and len(rates) > 1 else ""
    lines += line("raw", raw, low, high) + line("smooth", smoothed, low, high)
    rate_note = f", and the <u>learning rate</u>, at most {fastest:.2e}" if fastest else ""
    return (
        f'<figure class="train-lora-curve"><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Loss over steps"'
        f' data-frame="{LEFT} {WIDTH - RIGHT} {TOP} {HEIGHT - BOTTOM} {low:.6g} {high:.6g}"'
        f" data-points='{_data(raw, smoothed, rates)}'>"
        f'<clipPath id="train-lora-clip"><rect x="{LEFT}" y="{TOP}" width="{width}" height="{height}"/></clipPath>'
        f'{_axes(low, high, first, last)}<g clip-path="url(#train-lora-clip)">{lines}</g></svg>'
        f"<figcaption><span>loss: <b>smoothed</b>, and <i>of each step</i>{rate_note}</span><output></output>"
        "</figcaption></figure>"
    )


def _data(raw: Points, smoothed: Points, rates: Points) -> str:
    """Columns of numbers as JSON: step, loss, smoothed loss, learning rate."""
    by_step = dict(rates)
    rows = ((step, loss, mean, by_step.get(step, 0.0)) for (step, loss), (_, mean) in zip(raw, smoothed, strict=True))
    return "[" + ",".join(f"[{step},{loss:.5g},{mean:.5g},{rate:.3g}]" for step, loss, mean, rate in rows) + "]"


def smooth(points: Points) -> list[tuple[int, float]]:
    """Exponential mean over about a tenth of the points, free of the pull towards the first one."""
    # At least 2 and at most 50 points: a short run is not flattened, a long one still reacts.
    keep = 1 - 1 / max(2.0, min(50.0, len(points) / 10))
    # `weight` corrects the bias towards 0 at the start, as Adam does (Kingma & Ba 2015, section 3).
    mean, weight, result = 0.0, 0.0, []
    for step, loss in points:
        mean, weight = keep * mean + (1 - keep) * loss, keep * weight + (1 - keep)
        result.append((step, mean / weight))
    return result


def thin(points: Points) -> Points:
    """Evenly chosen points, few enough to send every second; the last one stays."""
    # Counted back from the last point: it is the one that is watched.
    stride = max(1, -(-len(points) // DRAWN_POINTS))
    return points[(len(points) - 1) % stride :: stride]


def _range(values: list[float]) -> tuple[float, float]:
    ordered = sorted(values)
    # Half of the hidden share at each end.
    spare = int(len(ordered) * (1 - SHOWN_SHARE) / 2)
    low, high = ordered[spare], ordered[-1 - spare]
    # A constant loss has no range of its own.
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
