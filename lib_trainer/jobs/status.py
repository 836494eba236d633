"""The state of a run: an immutable `Status`, and the `Record` that makes it from events."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

from lib_trainer.events import (
    Evaluated,
    Event,
    Finished,
    Notice,
    Planned,
    Progress,
    Sampled,
    Saved,
    Started,
    StateSaved,
    Step,
)

LIVE = frozenset(("queued", "preparing", "caching", "training", "saving", "paused"))
KEPT_LOSSES = 2000
KEPT_NOTICES = 200
KEPT_SAMPLES = 60
# The pace is the median of the last steps: it follows when the machine gets slower, and one pause does not move it.
PACE_STEPS = 20
WAITING = "Waiting until the WebUI has finished what it is doing"


@dataclass(frozen=True)
class Queued:
    """A run in the queue."""

    id: str
    name: str


@dataclass(frozen=True)
class Status:
    """The state of a run, or how it ended.

    Attributes:
        id: of the run, also its folder in the history; "" where there is none.
        version: grows with every change, so that a watcher can skip what it knows.
        state: idle, queued, preparing, caching, training, saving, paused, done, stopped or failed.
        name: of the adapter.
        started: wall clock of the start, in seconds since 1970; tells one run from the next.
        phase: the current work, for a person. `done` of `total` pieces of it are done.
        step, steps, epoch, loss, learning_rate: of the last optimizer step.
        seconds_per_step: median of the last steps; eta_seconds: time left at that pace. 0 before the first step.
        peak_bytes: the device's peak of allocated memory; 0 where unknown.
        planned_bytes: the predicted peak; budget_bytes: what is available. 0 where unknown.
        losses: (step, loss), thinned evenly to 2000 points at most; rates: (step, learning rate) of the same steps.
        notices: the run's messages, oldest first.
        samples: the sample pictures, oldest first.
        evaluations: what was measured, oldest first; empty for a run that is not evaluated.
        evaluated: what was measured of the finished adapter.
        kept_step: the step that a resume would continue from; -1 while there is none.
        queue: the queued runs, in order.
        stopping: a stop was requested and has not happened yet.
        path, tag: of the finished adapter, and how to write it in a prompt.
        error, hint, problems: of a run that failed; problems: field -> what is wrong with it.
        remedy: settings with which the same run may succeed; empty if none are known.
        interrupted: while idle, the name of the last run if a crash ended it.
    """

    id: str = ""
    version: int = 0
    state: str = "idle"
    name: str = ""
    started: float = 0.0
    phase: str = ""
    done: int = 0
    total: int = 0
    step: int = 0
    steps: int = 0
    epoch: int = 0
    loss: float = 0.0
    learning_rate: float = 0.0
    seconds_per_step: float = 0.0
    eta_seconds: float = 0.0
    peak_bytes: int = 0
    planned_bytes: int = 0
    budget_bytes: int = 0
    losses: tuple[tuple[int, float], ...] = ()
    rates: tuple[tuple[int, float], ...] = ()
    notices: tuple[str, ...] = ()
    samples: tuple[Sampled, ...] = ()
    evaluations: tuple[Evaluated, ...] = ()
    evaluated: Evaluated | None = None
    kept_step: int = -1
    queue: tuple[Queued, ...] = ()
    stopping: bool = False
    path: Path | None = None
    tag: str = ""
    error: str = ""
    hint: str = ""
    problems: dict[str, str] = field(default_factory=dict)
    remedy: dict[str, float] = field(default_factory=dict)
    interrupted: str = ""

    @property
    def live(self) -> bool:
        """The run is queued, working or paused."""
        return self.state in LIVE

    @property
    def unsaved_seconds(self) -> float:
        """The training time since the resume state, which a stop without saving would lose."""
        return (self.step - max(self.kept_step, 0)) * self.seconds_per_step

    @property
    def more_steps(self) -> int:
        """About how many more steps may help a run that is done and can go on."""
        can_go_on = self.state == "done" and self.kept_step >= self.step
        return self.evaluated.more_steps if can_go_on and self.evaluated else 0

    @property
    def odd_pictures(self) -> list[str]:
        """Pictures of which far more or far less was learned than of the others, by the last evaluation."""
        return [*self.evaluations[-1].unlearned, *self.evaluations[-1].at_once] if self.evaluations else []


class Record:
    """Collects the events of one run. Not thread-safe: its owner locks."""

    def __init__(self, name: str, started: float, run_id: str = "") -> None:
        # `brief` lacks losses and notices: copying thousands of points at every step would cost more than it tells.
        self.brief = Status(id=run_id, state="queued", name=name, started=started, phase=WAITING)
        self._points: list[tuple[int, float, float]] = []
        self._stride = 1
        self._notices: deque[str] = deque(maxlen=KEPT_NOTICES)
        self._samples: deque[Sampled] = deque(maxlen=KEPT_SAMPLES)
        self._pace: deque[float] = deque(maxlen=PACE_STEPS)
        self._working = "preparing"
        self._outcome = "stopped"

    def status(self) -> Status:
        return replace(
            self.brief,
            losses=tuple((step, loss) for step, loss, _ in self._points),
            rates=tuple((step, rate) for step, _, rate in self._points),
            notices=tuple(self._notices),
            samples=tuple(self._samples),
        )

    def set(self, **changes: object) -> None:
        self.brief = replace(self.brief, version=self.brief.version + 1, **changes)

    def note(self, text: str) -> None:
        self._notices.append(text)
        self.set()

    def recall(
        self,
        points: Iterable[tuple[int, float, float]],
        samples: Iterable[Sampled],
        evaluations: Iterable[Evaluated] = (),
    ) -> None:
        """Takes over the curve, (step, loss, learning rate), samples and evaluations from before a resume."""
        self.set(evaluations=tuple(evaluations))
        for step, loss, rate in points:
            self._point(step, loss, rate)
        self._samples.extend(samples)

    def pause(self, paused: bool) -> None:
        """Shows the run as paused, or in the state it had before."""
        # Pausing twice must not remember `paused` as the work to return to.
        if self.brief.state != "paused":
            self._working = self.brief.state
        self.set(state="paused" if paused else self._working)

    def close(self, **changes: object) -> None:
        """Ends the run: done if it said so and `changes` say nothing else, stopped if it did not."""
        if self.brief.live:
            self.set(**{"state": self._outcome, "phase": "", "stopping": False, "eta_seconds": 0.0, **changes})

    def take(self, event: Event) -> None:
        """Takes in an event of the run."""
        match event:
            case Progress():
                self._work(_state_of(event.phase), phase=event.note or event.phase, done=event.done, total=event.total)
            case Started():
                self._begin(event)
            case Step():
                self._step(event)
            case Notice():
                self.note(event.text)
            case Planned():
                self.note(event.text)
                self.set(planned_bytes=event.tensor_bytes, budget_bytes=event.budget_bytes)
            case StateSaved():
                self.set(kept_step=event.step)
            case Sampled():
                self._samples.append(event)
                self.set()
            case Saved():
                self.note(f"Saved {event.path.name} at step {event.step}.")
            case Evaluated():
                self.set(evaluations=(*self.brief.evaluations, event))
            case Finished():
                # Not over yet: restoring the host's model may still fail.
                self._outcome = "stopped" if event.stopped_early else "done"
                self.set(path=event.path, tag=event.tag, step=event.steps, evaluated=event.evaluated)

    def _work(self, state: str, **changes: object) -> None:
        self._working = state
        # A pause that was requested during this piece of work still holds.
        self.set(state="paused" if self.brief.state == "paused" else state, **changes)

    def _begin(self, event: Started) -> None:
        # Steps after the resume state will be trained again.
        self._points = [point for point in self._points if point[0] <= event.step]
        self._samples = deque((s for s in self._samples if s.step <= event.step), maxlen=KEPT_SAMPLES)
        self.set(evaluations=tuple(found for found in self.brief.evaluations if found.step <= event.step))
        if event.step:
            self.note(f"Resuming from step {event.step} of {event.steps}.")
        self.set(step=event.step, steps=event.steps, kept_step=event.step or -1)

    def _step(self, event: Step) -> None:
        # The first step of a run also compiles kernels and takes longer; the median ignores it.
        self._pace.append(event.seconds)
        pace = median(self._pace)
        self._work(
            "training",
            phase="Training",
            done=event.number,
            total=event.total,
            step=event.number,
            steps=event.total,
            epoch=event.epoch,
            loss=event.loss,
            learning_rate=event.learning_rate,
            seconds_per_step=pace,
            eta_seconds=pace * (event.total - event.number),
            peak_bytes=event.peak_bytes,
        )
        self._point(event.number, event.loss, event.learning_rate)

    def _point(self, step: int, loss: float, rate: float) -> None:
        if step % self._stride == 0:
            self._points.append((step, loss, rate))
        if len(self._points) > KEPT_LOSSES:
            # Halved rather than cut: the curve keeps its whole length at half the resolution.
            self._stride *= 2
            self._points = [point for point in self._points if point[0] % self._stride == 0]


def _state_of(phase: str) -> str:
    return next((state for state in ("caching", "saving", "training") if state in phase.lower()), "preparing")
