"""Work that is done by threads of its own, a little before it is needed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")


def made_ahead(
    items: Iterable[Item], make: Callable[[Item], Made], *, workers: int, ahead: int
) -> Generator[tuple[Item, Future[Made]], None, None]:
    """Each item with what `make` makes of it, in their order; `ahead` more are under way or done while one is used.

    What `make` raises is raised by the future's `result`. Closing the generator waits for what is under way.
    """
    waiting: deque[tuple[Item, Future[Made]]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="ahead")
    try:
        for item in items:
            waiting.append((item, pool.submit(make, item)))
            if len(waiting) > ahead:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()
    finally:
        # What nobody will ask for any more is not begun.
        pool.shutdown(cancel_futures=bool(waiting))
