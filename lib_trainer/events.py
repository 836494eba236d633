"""What a run says of itself while it goes on, and what is said to it.

`run.run` is a generator of these. Whoever drives it pauses by not asking for the next one, sends a `Command` in answer
to a `Step`, and stops it by throwing `StopRequested` into it; however it ends, the host gets everything back.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from enum import Enum
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Progress:
    """`done` of `total` pieces of a phase are done: preparing, caching, saving."""

    phase: str
    done: int
    total: int
    note: str = ""


@dataclass(frozen=True)
class Step:
    """One optimizer step was taken.

    Attributes:
        number, total: steps taken, and steps of the whole run.
        epoch: pass over the folder, from 1.
        loss: mean weighted loss of the step's pictures.
        learning_rate: the rate the step was taken with.
        seconds: wall time since the step before.
        peak_bytes: the device's peak of allocated memory so far; 0 where the device cannot tell.
    """

    number: int
    total: int
    epoch: int
    loss: float
    learning_rate: float
    seconds: float
    peak_bytes: int = 0


@dataclass(frozen=True)
class Notice:
    """Something a person should know, and the run goes on."""

    text: str


@dataclass(frozen=True)
class Planned:
    """What the run will take of the device's memory.

    Attributes:
        parts: what it goes to, in words -> bytes.
        total_bytes: their sum, the predicted peak with its reserve.
        tensor_bytes: without the reserve, as a device counts its peak.
        budget_bytes: what can be had; 0 where nobody knows.
        text: all that in a sentence or two.
    """

    parts: dict[str, int]
    total_bytes: int
    tensor_bytes: int
    budget_bytes: int
    text: str


@dataclass(frozen=True)
class Begun:
    """Everything is ready: the steps follow.

    Attributes:
        step: steps that were taken in an earlier life of this run; 0 for a new one.
        steps: of the whole run.
        checkpoint: name of what is trained on.
        pictures: fingerprint of the pictures and captions, hex.
    """

    step: int
    steps: int
    checkpoint: str
    pictures: str


@dataclass(frozen=True)
class Kept:
    """Whatever happens now, the run can go on from this step."""

    step: int


@dataclass(frozen=True)
class Sampled:
    """A picture was drawn with what is learned so far."""

    path: Path
    step: int
    prompt: str


@dataclass(frozen=True)
class Saved:
    """A complete adapter file stands at `path`."""

    path: Path
    step: int


@dataclass(frozen=True)
class Evaluated:
    """What the run has learned after `step`. The measures are defined in `lib_trainer.evaluation.measures`.

    Attributes:
        learned: L, the share of the loss that is gone on held-out pictures; T where none is held out.
        trained: T, the same on training pictures.
        drift: E, how far unrelated prompts have moved.
        memorised: G = T − L; None where no picture is held out.
        bound: Bind, what the trigger word adds over its class word; None without a trigger word.
        least_loss_strength: s*, the strength with the least loss, 2 at most.
        score: J, what learned, trained and drift come to at the best strength.
        strength: the best at this step; best_step, best_strength: the best so far.
        verdict: "not learned yet", "learned", "burning" or "memorising".
        advice: that in a sentence, with what to do.
        more_steps: about how many more steps may help; 0 where none do.
        curve: (strength, share of the loss that is gone): the parabola of loss over strength.
        by_picture: name -> share of its loss that is gone.
    """

    step: int
    learned: float
    trained: float
    drift: float
    memorised: float | None
    bound: float | None
    least_loss_strength: float
    score: float
    strength: float
    best_step: int
    best_strength: float
    verdict: str
    advice: str
    more_steps: int = 0
    curve: tuple[tuple[float, float], ...] = ()
    by_picture: dict[str, float] = field(default_factory=dict)

    @classmethod
    def from_values(cls, values: dict[str, Any]) -> Evaluated:
        """What `asdict` made of one, read from JSON; fields of other releases are left out."""
        known = {item.name: values[item.name] for item in fields(cls) if item.name in values}
        return cls(**{**known, "curve": tuple((strength, share) for strength, share in values.get("curve", ()))})


@dataclass(frozen=True)
class Finished:
    """The last event of a run that saved its adapter. `tag` is what goes into a prompt: `<lora:NAME:0.8>`.

    Attributes:
        steps: that were taken.
        stopped_early: a person ended it.
        evaluated: what was found of the saved adapter; None for a run that is not evaluated.
    """

    path: Path
    tag: str
    steps: int
    stopped_early: bool = False
    evaluated: Evaluated | None = None


Event = Progress | Planned | Begun | Step | Notice | Kept | Sampled | Saved | Evaluated | Finished


class Command(Enum):
    """What may be sent into a run in answer to a `Step`, and to every `Saved`, `Kept` and `Sampled` after it."""

    SAVE = "save"
    SAMPLE = "sample"
    KEEP = "keep"


class StopRequested(Exception):
    """Thrown into a run: stop after the step under way, and save what is learned if `save`."""

    def __init__(self, *, save: bool) -> None:
        super().__init__("stopped and saved" if save else "stopped")
        self.save = save
