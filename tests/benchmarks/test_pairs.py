"""What the benchmark says of timings."""

from __future__ import annotations

import pytest

from benchmarks.pairs import Ratios, joined, paired, weighted


def test_sides_take_turns_and_each_pair_is_divided() -> None:
    calls: list[str] = []

    def timer(name: str, seconds: list[float]):
        def run(repeats: int) -> float:
            calls.append(name)
            return seconds.pop(0) * repeats

        return run

    found = paired(timer("a", [9, 1, 2, 4]), timer("b", [9, 3, 4, 6]), rounds=3, least_s=0.5)
    assert calls == ["a", "b"] * 4
    assert found.values == (3, 2, 1.5)
    assert (found.ours_s, found.theirs_s) == (1, 3)
    assert str(found) == "2.00 (1.75–2.50)"


@pytest.mark.parametrize(("warm", "values"), [(True, (2.0, 3.0)), (False, (3.0, 4.0))])
def test_a_first_pair_counts_where_both_are_warm(warm: bool, values: tuple[float, ...]) -> None:
    theirs = [2.0, 3.0, 4.0]
    assert paired(lambda _: 1.0, lambda _: theirs.pop(0), rounds=2, least_s=0.5, warm=warm).values == values


def test_a_first_short_run_never_counts() -> None:
    theirs = [9.0, 30.0]
    found = paired(lambda repeats: 0.1 * repeats, lambda _: theirs.pop(0), rounds=1, least_s=1.0, warm=True)
    assert found.values == pytest.approx((30.0,))


def test_short_runs_are_repeated_until_they_can_be_told_from_noise() -> None:
    asked: list[int] = []

    def run(repeats: int) -> float:
        asked.append(repeats)
        return 0.001 * repeats

    assert paired(run, run, rounds=1, least_s=0.03).ours_s == pytest.approx(0.001)
    assert asked[-2:] == [30, 30]


def test_a_whole_weighs_its_parts_by_how_often_they_occur() -> None:
    whole = weighted([(9, Ratios((2.0, 2.0), 1.0, 2.0)), (1, Ratios((1.0, 3.0), 1.0, 1.0))])
    assert whole.values == pytest.approx((1.9, 2.1))
    assert (whole.ours_s, whole.theirs_s) == (10.0, 19.0)


def test_pairs_of_several_processes_are_one_series() -> None:
    assert joined([Ratios((2.0,), 1.0, 2.0), Ratios((3.0,), 0.5, 1.5)]) == Ratios((2.0, 3.0), 0.5, 1.5)
