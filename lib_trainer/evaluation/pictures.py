"""What is left of each picture's loss over a run, from the losses of the training steps themselves.

It costs no forward pass. A step draws a timestep for each picture, and the loss depends far more on that than on the
picture: every loss is divided by the mean over all pictures at like timesteps, as it was in the first window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from torch import Tensor

from lib_trainer.config.loss import TIMESTEPS
from lib_trainer.evaluation.constants import (
    LEAST_DRAWS,
    LEAST_FOLLOWED,
    MOST_FOLLOWED,
    ODD_SHARE,
    ODD_SPREADS,
)

_BINS = 10
# The median distance from the median, times this, is the standard deviation of a normal distribution.
_SPREAD_OF_MAD = 1.4826

# Name of a picture -> what is left of its loss in a window, 1 being the usual loss at the start.
Shares = dict[str, float]


@dataclass
class Sums:
    """Of one picture: the sum of its losses and their number, by bins of timesteps."""

    losses: list[float] = field(default_factory=lambda: [0.0] * _BINS)
    counts: list[int] = field(default_factory=lambda: [0] * _BINS)

    def add(self, timestep: float, loss: float) -> None:
        place = min(_BINS - 1, int(timestep * _BINS / TIMESTEPS))
        self.losses[place] += loss
        self.counts[place] += 1


class PictureLosses:
    """Follows the losses of some pictures from one evaluation to the next.

    Args:
        names: sample -> name of a picture that is followed.
    """

    def __init__(self, names: dict[int, str]) -> None:
        self._names = names if LEAST_FOLLOWED <= len(names) <= MOST_FOLLOWED else {}
        self._sums: dict[int, Sums] = {}
        # Mean loss by bins of timesteps in the first window; 0 where none was drawn.
        self._start: list[float] = []
        self._pending: list[tuple[tuple[int, ...], Tensor, Tensor]] = []

    def note(self, samples: tuple[int, ...], timesteps: Tensor, losses: Tensor) -> None:
        """The losses (B,) of a micro-batch. They stay on the device, so that no step waits for them."""
        if self._names:
            self._pending.append((samples, timesteps, losses))

    def close_window(self) -> Shares:
        """What is left of each picture's loss since the last call; pictures that were drawn too seldom are left out."""
        self._add_pending()
        sums, self._sums = self._sums, {}
        if not self._start:
            self._start = _means(list(sums.values()))
        shares = {self._names[index]: self._share(found) for index, found in sorted(sums.items())}
        return {name: share for name, share in shares.items() if share is not None}

    def pack(self) -> dict[str, Any]:
        """Everything as JSON, for a resume."""
        self._add_pending()
        sums = {index: [found.losses, found.counts] for index, found in self._sums.items()}
        return {"start": self._start, "sums": sums}

    def unpack(self, values: dict[str, Any]) -> None:
        self._start = values["start"]
        self._sums = {int(index): Sums(*parts) for index, parts in values["sums"].items()}

    def _add_pending(self) -> None:
        for samples, timesteps, losses in self._pending:
            for index, timestep, loss in zip(samples, timesteps.tolist(), losses.tolist(), strict=True):
                if index in self._names:
                    self._sums.setdefault(index, Sums()).add(timestep, loss)
        self._pending.clear()

    def _share(self, sums: Sums) -> float | None:
        usual = [(count, start) for count, start in zip(sums.counts, self._start, strict=True) if start]
        if sum(count for count, _ in usual) < LEAST_DRAWS:
            return None
        seen = sum(loss for loss, start in zip(sums.losses, self._start, strict=True) if start)
        return round(seen / sum(count * start for count, start in usual), 4)


def odd_pictures(windows: Sequence[Shares]) -> tuple[list[str], list[str]]:
    """(pictures that do not learn, pictures that learn at once): those far from the others in what is left.

    Args:
        windows: what is left of each picture's loss, oldest first.
    """
    if len(windows) < 2:
        return [], []
    # The later half of the run, since one window is noisy.
    late = windows[len(windows) // 2 :]
    left = {name: sum(found[name] for found in late) / len(late) for name in late[0] if all(name in w for w in late)}
    if len(left) < LEAST_FOLLOWED:
        return [], []
    middle = median(left.values())
    spread = _SPREAD_OF_MAD * median(abs(share - middle) for share in left.values())
    far = max(ODD_SPREADS * spread, ODD_SHARE * middle)
    order = sorted(left, key=left.__getitem__)
    return [name for name in reversed(order) if left[name] > middle + far], [n for n in order if left[n] < middle - far]


def _means(found: Sequence[Sums]) -> list[float]:
    """Mean loss of all pictures, by bins."""
    counts = [sum(sums.counts[place] for sums in found) for place in range(_BINS)]
    return [sum(sums.losses[place] for sums in found) / count if count else 0.0 for place, count in enumerate(counts)]
