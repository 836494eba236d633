"""Work that threads do ahead of time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")


def prefetched(
    items: Iterable[Item], make: Callable[[Item], Made], *, workers: int, ahead: int
) -> Generator[tuple[Item, Future[Made]], None, None]:
    """Each item with the future of `make(item)`, in order; `ahead` more are under way or done meanwhile.

    The future's `result` raises what `make` raised. Closing the generator waits for what is under way. When the program
    ends meanwhile it raises SystemExit, which ends a thread without a word.
    """
    waiting: deque[tuple[Item, Future[Made]]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="prefetch")
    try:
        for item in items:
            waiting.append((item, _submit(pool, make, item)))
            if len(waiting) > ahead:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()
    finally:
        # Closed early: what has not begun would only delay the end.
        pool.shutdown(cancel_futures=bool(waiting))


def _submit(pool: ThreadPoolExecutor, make: Callable[[Item], Made], item: Item) -> Future[Made]:
    try:
        return pool.submit(make, item)
    except RuntimeError as error:
        # Python tells threads in no other way; a machine without another thread to give raises the same type.
        if "interpreter shutdown" in str(error):
            raise SystemExit from error
        raise
