"""Threads that work beside a program and end with it."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable

# How long the end of the program waits for one of them.
_PATIENCE_SECONDS = 5.0


def start_background(work: Callable[[], None], stop: Callable[[], None], name: str) -> threading.Thread:
    """Starts `work` in a daemon thread; when the program ends, calls `stop` and waits for the thread for a moment.

    A thread that is inside C++ code (NumPy, OpenCV, torch) while the interpreter is torn down is ended there, which
    those libraries answer with "terminate called without an active exception".

    Args:
        stop: asks `work` to return soon; called from another thread.
    """

    def run() -> None:
        try:
            work()
        finally:
            atexit.unregister(end)

    def end() -> None:
        stop()
        thread.join(_PATIENCE_SECONDS)

    # A daemon: a picture that takes minutes must not keep the program alive.
    thread = threading.Thread(target=run, name=name, daemon=True)
    atexit.register(end)
    thread.start()
    return thread
