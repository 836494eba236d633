"""Pairs of timings, and what they say."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

# Seconds, of so many repeats.
Timer = Callable[[int], float]


@dataclass(frozen=True)
class Ratios:
    """How many times longer one took than the other, pair by pair.

    Attributes:
        values: theirs / ours of each pair.
        ours_s, theirs_s: the shortest single run of each, in seconds.
    """

    values: tuple[float, ...]
    ours_s: float
    theirs_s: float

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def quartiles(self) -> tuple[float, float]:
        if len(self.values) < 2:
            return self.values[0], self.values[0]
        low, _, high = statistics.quantiles(self.values, n=4, method="inclusive")
        return low, high

    def __str__(self) -> str:
        low, high = self.quartiles
        return f"{self.median:.2f} ({low:.2f}–{high:.2f})"


def seconds_of(run: Callable[[], None], repeats: int) -> float:
    """How long so many runs take, one after the other."""
    on_card = torch.cuda.is_initialized()
    # One thread's own time is what it would take on an idle machine, whatever else runs on this one.
    clock = time.process_time if torch.get_num_threads() == 1 and not on_card else time.perf_counter
    started = clock()
    for _ in range(repeats):
        run()
    if on_card:
        torch.cuda.synchronize()
    return clock() - started


def paired(ours: Timer, theirs: Timer, *, rounds: int, least_s: float, warm: bool = False) -> Ratios:
    """A B A B …: each of `rounds` pairs times ours and then theirs, each long enough to be told from noise.

    Args:
        least_s: a short run is repeated until one timing takes about this long.
        warm: both have run before, so that a first pair of long runs counts like the others.
    """
    first = ours(1), theirs(1)
    # What runs long is warm by now.
    single = first[0] if first[0] > least_s else ours(1)
    repeats = max(1, round(least_s / max(single, 1e-6)))
    pairs = [first] if warm and repeats == 1 else []
    while len(pairs) < rounds:
        pairs.append((ours(repeats) / repeats, theirs(repeats) / repeats))
    return Ratios(tuple(b / a for a, b in pairs), min(a for a, _ in pairs), min(b for _, b in pairs))


def joined(parts: Sequence[Ratios]) -> Ratios:
    """All pairs of the same thing."""
    values = tuple(value for part in parts for value in part.values)
    return Ratios(values, min(part.ours_s for part in parts), min(part.theirs_s for part in parts))


def weighted(parts: Sequence[tuple[int, Ratios]]) -> Ratios:
    """Ratios of a whole in which each part occurs so often: its pair i takes every part's pair i."""
    rounds = min(len(part.values) for _, part in parts)
    ours_s = sum(count * part.ours_s for count, part in parts)
    values = [sum(count * part.ours_s * part.values[i] for count, part in parts) / ours_s for i in range(rounds)]
    return Ratios(tuple(values), ours_s, sum(count * part.theirs_s for count, part in parts))
