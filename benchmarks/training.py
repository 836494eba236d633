"""(b) and (d): whole training steps of a UNet, and the bytes they take, in pairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.cases import ADAPTERS, FROZEN, OURS, Compute, Implementation, family_of
from benchmarks.pairs import Ratios, paired
from benchmarks.processes import Worker, WorkerDied, workers
from benchmarks.report import mebibytes, say, table

ENDED = "ended unmeasured"
# A GPU takes several steps per second.
_LEAST_S = 0.3


@dataclass(frozen=True)
class Setting:
    """What every side trains on."""

    family: str
    size_px: int
    batch: int
    adapter: str
    checkpointing: bool
    compute: Compute

    def __str__(self) -> str:
        label = family_of(self.family).label
        how = "with" if self.checkpointing else "without"
        return (
            f"{self.adapter}, the whole UNet of {label} at {self.size_px} px, batch {self.batch}, "
            f"{self.compute.dtype} on {self.compute.device}, {how} checkpointing"
        )


@dataclass(frozen=True)
class Side:
    """One side of a pair: the losses of its first steps, and what a step takes."""

    losses: list[float]
    peak_bytes: int
    kept_bytes: int


@dataclass(frozen=True)
class Comparison:
    """One baseline beside ours; neither ratios nor side where its process ended, as a rule for want of memory."""

    baseline: Implementation
    ratios: Ratios | None
    side: Side | None


def compare_steps(
    setting: Setting, baselines: Sequence[Implementation], rounds: int, folder: Path, threads: int
) -> tuple[Side, list[Comparison]]:
    """Ours and what it compares to."""
    with workers([OURS, *baselines], folder, threads) as (ours, *others):
        return compare_whole_steps(ours, others, setting, rounds)


def compare_whole_steps(
    ours: Worker, others: Sequence[Worker], setting: Setting, rounds: int, losses: int = 3
) -> tuple[Side, list[Comparison]]:
    """The same in processes that are there; one other at a time loads its UNet.

    Args:
        losses: so many steps, at least 1, come before those that are timed.

    Raises:
        WorkerDied: ours ended.
    """
    found = []
    with _loaded(ours, setting, losses) as our_side:
        for other in others:
            ratios = side = None
            try:
                with _loaded(other, setting, losses) as side:
                    ratios = paired(
                        lambda repeats: ours.ask(time=repeats),
                        lambda repeats, other=other: other.ask(time=repeats),
                        rounds=rounds,
                        least_s=_LEAST_S,
                        warm=True,
                    )
            except WorkerDied:
                # What takes hours goes on without whoever needs more memory than there is.
                if other.is_running:
                    raise
            found.append(Comparison(other.implementation, ratios, side))
            say(f"{setting}: {other.implementation.name} {ratios or ENDED}", progress=True)
    return our_side, found


def report_steps(setting: Setting, ours: Side, found: Sequence[Comparison]) -> None:
    """Ours first; then a line for everyone beside it."""
    say(f"\n{setting}: forward, backward and optimizer step; “{FROZEN.name}” takes no optimizer step\n")
    shortest = min(item.ratios.ours_s for item in found if item.ratios)
    rows = [["ours", "1", f"{shortest:.2f}", *_facts(ours)]]
    for item in found:
        seconds = f"{item.ratios.theirs_s:.2f}" if item.ratios else ""
        facts = _facts(item.side) if item.side else ["", "", ""]
        rows.append([item.baseline.name, str(item.ratios or ENDED), seconds, *facts])
    head = [
        "",
        "times as long",
        "a step, s",
        "peak, MiB",
        "kept for backward, MiB",
        f"losses of {len(ours.losses)} steps",
    ]
    say(table(head, rows))


@contextmanager
def _loaded(worker: Worker, setting: Setting, losses: int) -> Iterator[Side]:
    with worker.loaded(
        load="step",
        family=setting.family,
        size_px=setting.size_px,
        batch=setting.batch,
        adapter=asdict(ADAPTERS[setting.adapter]),
        checkpointing=setting.checkpointing,
        compute=asdict(setting.compute),
    ):
        yield Side(worker.ask(losses=losses), **worker.ask(memory=True))


def _facts(side: Side) -> list[str]:
    losses = " ".join(f"{loss:.6f}" for loss in side.losses)
    return [mebibytes(side.peak_bytes), mebibytes(side.kept_bytes), losses]
