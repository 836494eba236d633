"""How many pictures there are, beside the guide's numbers."""

from __future__ import annotations

from lib_trainer.dataset.checks.finding import Finding, plural

# What is trained -> fewest and most pictures that the guide asks for.
GUIDE = {"face": (10, 20), "style": (20, 50)}


def check_count(pictures: int, kind: str) -> list[Finding]:
    """The finding `count`, for a kind that the guide knows."""
    if kind not in GUIDE:
        return []
    low, high = GUIDE[kind]
    if pictures < low:
        return [Finding("count", (), f"{plural(pictures)}: the guide asks for {low} to {high} for a {kind}.")]
    # Many good pictures do no harm; they only take longer.
    if pictures > 2 * high:
        text = f"{plural(pictures)}: {low} to {high} are usual for a {kind}; fewer and better ones often learn faster."
        return [Finding("count", (), text, "note")]
    return []
