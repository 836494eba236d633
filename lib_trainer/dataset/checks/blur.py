"""Pictures that are less sharp than the others of their set."""

from __future__ import annotations

import numpy as np

from lib_trainer.dataset.checks.finding import Finding, named
from lib_trainer.dataset.checks.pictures import Pictures

# Below the set's median by this much (natural logarithm of a variance) and by this many spreads.
_LOWER, _SPREADS = 1.4, 3.0
_FEWEST = 4


def check_blur(pictures: Pictures) -> list[Finding]:
    """The finding `blur`. It compares within the set: a style that is soft throughout is not blamed."""
    if len(pictures) < _FEWEST:
        return []
    sharpness = pictures.column("sharpness")
    median = np.median(sharpness)
    # The upper half alone says how much sharp pictures differ, however many are blurred.
    spread = 1.4826 * np.median((sharpness - median)[sharpness >= median])
    limit = median - max(_LOWER, _SPREADS * spread)
    blurred = pictures.images(sharpness < limit)
    return [Finding("blur", blurred, f"Less sharp than the others: {named(blurred)}.")] if blurred else []
