"""Nobody else moves the WebUI's models while we hold its lock."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from lib_trainer.errors import UserError
from lib_trainer.utils.patch import attributes

_log = logging.getLogger(__name__)


@contextmanager
def model_guard(owner: Any, movers: Sequence[str], loading: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """While entered, only the thread that entered moves models; others wait for the lock, as Generate does.

    A WebUI moves models without its lock too: API calls and buttons that unload all, interrogators, preprocessors. In
    the middle of a training step that would take the weights away. A call on an event loop gets a UserError instead
    of waiting, because the whole WebUI would wait with it.

    Args:
        owner: the WebUI's module whose functions move models.
        movers: their names; a program need not have all of them.
        loading: whether nobody waits just now, because a model is being loaded that we wait for ourselves.
    """
    thread = threading.get_ident()
    waiting = {name: _waiting(getattr(owner, name), thread, loading) for name in movers if hasattr(owner, name)}
    with attributes([owner], **waiting):
        yield


def _waiting(move: Callable[..., Any], thread: int, loading: Callable[[], bool]) -> Callable[..., Any]:
    def wait_and_move(*args: Any, **kwargs: Any) -> Any:
        from modules.call_queue import queue_lock

        if threading.get_ident() == thread or loading():
            return move(*args, **kwargs)
        if _on_event_loop():
            raise UserError("Train LoRA is using the model.", "Wait until it has finished, or stop it.")
        _log.warning("%s waits until Train LoRA has finished with the model.", move.__name__)
        with queue_lock:
            return move(*args, **kwargs)

    return wait_and_move


def _on_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
