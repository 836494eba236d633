"""Events that a run yields, and commands that are sent into it.

`run.run` is a generator of events. Its caller pauses it by not asking for the next one, sends a `Command` in answer to
a `Step`, and stops it by throwing `StopRequested` into it. The host's model is restored however the run ends.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from enum import Enum
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Progress:
    """`done` of `total` items of a phase are done. Phases of a run: preparing, caching, training, saving."""

    phase: str
    done: int
    total: int
    note: str = ""


@dataclass(frozen=True)
class Step:
    """One optimizer step was taken.

    Attributes:
        number, total: steps taken, and steps of the whole run.
        epoch: from 1.
        loss: mean weighted loss of the step's images.
        learning_rate: the rate the step was taken with.
        seconds: wall time since the step before.
        peak_bytes: the device's peak of allocated memory so far; 0 on a CPU.
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
    """A message for the person; the run continues."""

    text: str


@dataclass(frozen=True)
class Planned:
    """The memory plan.

    Attributes:
        parts: label -> bytes.
        total_bytes: their sum: the predicted peak with its reserve.
        tensor_bytes: without the reserve, as a device counts its peak.
        budget_bytes: what is available; 0 if unknown, as on a CPU.
        text: the plan in a sentence or two.
    """

    parts: dict[str, int]
    total_bytes: int
    tensor_bytes: int
    budget_bytes: int
    text: str


@dataclass(frozen=True)
class Started:
    """Caching is done; the steps follow.

    Attributes:
        step: steps already taken before a resume; 0 for a new run.
        steps: of the whole run.
        checkpoint: name of the base model.
        pictures: fingerprint of the images and captions, hex.
    """

    step: int
    steps: int
    checkpoint: str
    pictures: str


@dataclass(frozen=True)
class StateSaved:
    """The run can be resumed from this step, whatever happens now."""

    step: int


@dataclass(frozen=True)
class Sampled:
    """A sample image was generated with the adapter so far."""

    path: Path
    step: int
    prompt: str


@dataclass(frozen=True)
class Saved:
    """A complete adapter file was written to `path`."""

    path: Path
    step: int


@dataclass(frozen=True)
class Evaluated:
    """What the run has learned after `step`. The measures are defined in `lib_trainer.evaluation.measures`.

    Attributes:
        learned: L, the share of the loss that is gone on held-out images; T without any.
        trained: T, the same on training images.
        drift: E, how far unrelated prompts have moved.
        memorised: G = T − L; None without held-out images.
        bound: Bind, what the trigger word adds over its class word; None without a trigger word.
        least_loss_strength: s*, the strength with the least loss, 2 at most.
        score: J, the sum of learned, trained and drift at the best strength.
        strength: the best at this step; best_step, best_strength: the best so far.
        verdict: "not learned yet", "learned", "burning" or "memorising".
        advice: the verdict in a sentence, with what to do.
        more_steps: about how many more steps may help; 0 if none do.
        curve: (strength, share of the loss that is gone): the parabola of loss over strength.
        at_partial: "trained" and "held_out" at strength 0.6: what `figures_of` needs to judge again.
        by_picture: name -> share of its loss that is gone.
        left: name -> what training has left of its loss since the last evaluation, 1 being the usual at the start.
        unlearned, at_once: names of pictures of which far more, or far less, is left than of the others.
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
    at_partial: dict[str, float] = field(default_factory=dict)
    by_picture: dict[str, float] = field(default_factory=dict)
    left: dict[str, float] = field(default_factory=dict)
    unlearned: tuple[str, ...] = ()
    at_once: tuple[str, ...] = ()

    @classmethod
    def from_values(cls, values: dict[str, Any]) -> Evaluated:
        """From the JSON of `asdict`; ignores fields of other releases."""
        known = {item.name: values[item.name] for item in fields(cls) if item.name in values}
        curve = tuple((strength, share) for strength, share in values.get("curve", ()))
        odd = {name: tuple(values.get(name, ())) for name in ("unlearned", "at_once")}
        return cls(**{**known, **odd, "curve": curve})


@dataclass(frozen=True)
class Finished:
    """The last event of a run that saved its adapter. `tag` goes into a prompt: `<lora:NAME:0.8>`.

    Attributes:
        steps: that were taken.
        stopped_early: a person ended it.
        evaluated: the evaluation of the saved adapter; None for a run without evaluation.
    """

    path: Path
    tag: str
    steps: int
    stopped_early: bool = False
    evaluated: Evaluated | None = None


Event = Progress | Planned | Started | Step | Notice | StateSaved | Sampled | Saved | Evaluated | Finished


class Command(Enum):
    """May be sent into a run in answer to a `Step`, and to every `Saved`, `StateSaved` and `Sampled` after it."""

    SAVE = "save"
    SAMPLE = "sample"
    SAVE_STATE = "save_state"


class StopRequested(Exception):
    """Thrown into a run: stop after the current step, and save the adapter if `save`."""

    def __init__(self, *, save: bool) -> None:
        super().__init__("stopped and saved" if save else "stopped")
        self.save = save
