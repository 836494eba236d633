from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from lib_trainer.utils.prefetch import prefetched

PATIENCE_S = 20


def test_everything_is_made_in_order_and_comes_with_what_it_was_made_of() -> None:
    found = [(item, future.result()) for item, future in prefetched(range(20), lambda n: n * n, workers=3, ahead=5)]
    assert found == [(n, n * n) for n in range(20)]


def test_the_next_one_is_made_while_one_is_used_and_no_more_than_that() -> None:
    made, second = [], threading.Event()

    def make(number: int) -> int:
        made.append(number)
        if number == 1:
            second.set()
        return number

    with closing(prefetched(range(10), make, workers=1, ahead=1)) as ahead:
        _, first = next(ahead)
        assert first.result() == 0 and second.wait(PATIENCE_S)
        assert made == [0, 1]


def test_it_is_made_by_another_thread() -> None:
    [(_, thread)] = list(prefetched([0], lambda _: threading.current_thread(), workers=1, ahead=1))
    assert thread.result() is not threading.current_thread()


def test_what_fails_fails_where_it_is_used() -> None:
    def make(number: int) -> int:
        if number == 2:
            raise ValueError("two")
        return number

    futures = [future for _, future in prefetched(range(4), make, workers=2, ahead=2)]
    assert [future.result() for future in (*futures[:2], futures[3])] == [0, 1, 3]
    with pytest.raises(ValueError, match="two"):
        futures[2].result()


def test_closed_it_leaves_no_thread_behind() -> None:
    before = threading.active_count()
    with closing(prefetched(range(1000), lambda n: n, workers=2, ahead=4)) as ahead:
        next(ahead)
        assert threading.active_count() > before
    assert threading.active_count() == before


def test_a_machine_without_threads_is_an_error_and_no_end_of_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    for said, raised in (("can't start new thread", RuntimeError), ("after interpreter shutdown", SystemExit)):

        def refuse(*_: object, said: str = said) -> None:
            raise RuntimeError(said)

        monkeypatch.setattr(ThreadPoolExecutor, "submit", refuse)
        with pytest.raises(raised):
            list(prefetched([0], str, workers=1, ahead=1))
