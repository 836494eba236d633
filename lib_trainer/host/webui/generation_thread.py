"""The one thread on which programs of the Forge family generate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


def on_generation_thread(fn: Callable[[], T]) -> T:
    """fn() on the program's generation thread; what it raises comes back here."""
    from modules_forge import main_thread

    # The thread prints what its work raises and forgets it, and some programs drop the result: both are carried back.
    outcome: dict[str, Any] = {}

    def work() -> None:
        try:
            outcome["result"] = fn()
        except BaseException as error:  # noqa: BLE001 - raised again below, on the caller's thread
            outcome["error"] = error

    main_thread.run_and_wait_result(work)
    if "error" not in outcome:
        return outcome.pop("result")
    error = outcome.pop("error")
    try:
        raise error
    finally:
        # Its traceback holds this frame: a reference cycle that would keep all tensors of the failed run.
        del error
