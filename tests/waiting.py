"""Waiting for what happens on another thread, with a deadline that a busy machine keeps too."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE_S = 120.0


def until(condition: Callable[[], object]) -> None:
    """Returns once `condition()` holds. Raises AssertionError when it does not in time."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.005)
