"""Measures what a run has learned, always on the same pictures, noises and timesteps, against the base."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lib_trainer.dataset.cache_store import LatentStore
from lib_trainer.dataset.images import shown_name
from lib_trainer.dataset.scan import Scan
from lib_trainer.evaluation.constants import FULL, PARTIAL, TIMESTEPS
from lib_trainer.evaluation.measures import Figures, Parabola, bound, drift, share_gone, shares_gone, squared_errors
from lib_trainer.evaluation.probes import UNRELATED, ProbePlan, bind_captions
from lib_trainer.events import Progress, Step
from lib_trainer.training.denoiser import Denoiser, Query
from lib_trainer.training.objective import objective_of

# The trigger word is compared with its class word at one timestep: early and late ones say little of what is drawn.
_BIND_TIMESTEPS = (TIMESTEPS[1],)
HELD_OUT, TRAINED, UNRELATED_PROMPTS, NAMED, CLASSED = "held out", "trained", "unrelated", "named", "classed"


@dataclass(frozen=True)
class Probe:
    """One picture with its noise.

    Attributes:
        latents, noise: (C, h, w) float32 on the CPU.
        size: (6,) one row of `SizeCond.pixels`.
    """

    name: str
    caption: str
    latents: Tensor
    noise: Tensor
    size: Tensor


@dataclass(frozen=True)
class Question:
    """What the model is asked, and what it should say: (C, h, w)."""

    query: Query
    wanted: Tensor


# Kind of probe -> the answers to its questions, in their order.
Answers = dict[str, list[Tensor]]


class Meter:
    """The probes of a run, what the base says of them, and what the adapter has changed.

    Nothing here touches the random numbers, weights or gradients of training.
    """

    def __init__(self, denoiser: Denoiser, plan: ProbePlan, scan: Scan, latents: LatentStore, seed: int) -> None:
        self._denoiser, self._seed, self._trigger_word = denoiser, seed, plan.trigger_word
        self._pictures = {
            HELD_OUT: [self._probe(scan, latents, index) for index in plan.measured if (index, 0) in latents.entries],
            TRAINED: [self._probe(scan, latents, index) for index in plan.trained if (index, 0) in latents.entries],
        }
        self._questions = {kind: self._asked(probes) for kind, probes in self._pictures.items() if probes}
        if plan.trigger_word:
            pairs = [bind_captions(probe.caption, plan.trigger_word) for probe in self._pictures[TRAINED]]
            for kind, captions in zip((NAMED, CLASSED), zip(*pairs, strict=True), strict=False):
                self._questions[kind] = self._asked(self._pictures[TRAINED], captions)
        self._base: dict[str, Tensor] = {}
        self._base_answers: list[Tensor] = []

    @property
    def is_ready(self) -> bool:
        """Whether there is a picture to measure."""
        return bool(self._pictures[TRAINED])

    @property
    def forwards_each(self) -> int:
        """Forward passes of one evaluation, counted by pictures."""
        once = sum(len(questions) for kind, questions in self._questions.items() if kind != UNRELATED_PROMPTS)
        again = sum(len(self._questions.get(kind, ())) for kind in (HELD_OUT, TRAINED))
        return once + again + len(UNRELATED) * len(TIMESTEPS)

    @property
    def knows_base(self) -> bool:
        """Whether `measure_base` is done."""
        return bool(self._base)

    def measure_base(self, step: Step) -> Iterator[Progress]:
        """Draws the base's own pictures of unrelated prompts, and notes what the base says of every probe.

        The same after any `step`: the adapter does not act on the base.
        """
        yield Progress("training", step.number, step.total, "Drawing with the checkpoint, to measure drift")
        shape, size = self._pictures[TRAINED][0].latents.shape, self._pictures[TRAINED][0].size
        starts = [self._noise(f"drawn {prompt}", shape) for prompt in UNRELATED]
        drawn = self._denoiser.draw(UNRELATED, starts, size)
        noises = [self._noise(f"unrelated {prompt}", shape) for prompt in UNRELATED]
        probes = [Probe(*parts, size) for parts in zip(UNRELATED, UNRELATED, drawn, noises, strict=True)]
        self._questions[UNRELATED_PROMPTS] = self._asked(probes)
        yield Progress("training", step.number, step.total, "Measuring the checkpoint")
        answers = self._ask(self._questions, 0.0)
        self._base = {kind: self._table(kind, answers) for kind in self._questions}
        self._base_answers = answers[UNRELATED_PROMPTS]

    def measure(self, step: int) -> Figures:
        """The figures of the adapter as it is after `step`."""
        kinds = [kind for kind in (HELD_OUT, TRAINED) if kind in self._questions]
        answers, fewer = self._ask(self._questions, FULL), self._ask(kinds, PARTIAL)
        full = {kind: self._table(kind, answers) for kind in self._questions}
        gone = {kind: share_gone(table, self._base[kind]) for kind, table in full.items()}
        curves, by_picture = {}, {}
        for kind in kinds:
            curves[kind] = Parabola.through(share_gone(self._table(kind, fewer), self._base[kind]), gone[kind])
            shares = shares_gone(full[kind], self._base[kind]).tolist()
            by_picture |= {probe.name: share for probe, share in zip(self._pictures[kind], shares, strict=True)}
        lost = self._drift(answers[UNRELATED_PROMPTS])
        bind = bound(gone[NAMED], gone[CLASSED]) if NAMED in gone else None
        return Figures(step, curves[TRAINED], curves.get(HELD_OUT), lost, bind, by_picture)

    def _drift(self, answers: Sequence[Tensor]) -> float:
        moved = squared_errors(torch.stack(list(answers)), torch.stack(self._base_answers))
        return drift(moved.reshape(len(UNRELATED), -1), self._base[UNRELATED_PROMPTS])

    def _ask(self, kinds: Sequence[str] | dict[str, list[Question]], strength: float) -> Answers:
        # All at once, so that layers are computed for whole batches.
        asked = [(kind, question) for kind in kinds for question in self._questions[kind]]
        answers: Answers = {kind: [] for kind in kinds}
        found = self._denoiser.predict([question.query for _, question in asked], strength)
        for (kind, _), answer in zip(asked, found, strict=True):
            answers[kind].append(answer)
        return answers

    def _table(self, kind: str, answers: Answers) -> Tensor:
        """(P, T) losses."""
        pairs = zip(answers[kind], self._questions[kind], strict=True)
        errors = torch.cat([squared_errors(answer[None], question.wanted[None]) for answer, question in pairs])
        return errors.reshape(-1, len(_BIND_TIMESTEPS if kind in (NAMED, CLASSED) else TIMESTEPS))

    def _asked(self, probes: Sequence[Probe], captions: Sequence[str] | None = None) -> list[Question]:
        """The questions of these probes at all timesteps; under other captions at those for Bind."""
        objective = objective_of(self._denoiser.training.model)
        questions = []
        for place, probe in enumerate(probes):
            for t in TIMESTEPS if captions is None else _BIND_TIMESTEPS:
                parts = (probe.latents[None], probe.noise[None], torch.tensor([t]))
                caption = probe.caption if captions is None else captions[place]
                query = Query(objective.add_noise(*parts)[0], t, caption, probe.size)
                questions.append(Question(query, objective.target(*parts)[0]))
        return questions

    def _probe(self, scan: Scan, latents: LatentStore, index: int) -> Probe:
        picture, size = latents.read(index, 0)
        sample = scan.samples[index]
        noise = self._noise(f"picture {index}", picture.shape)
        return Probe(shown_name(sample.image), sample.caption, picture, noise, size)

    def _noise(self, purpose: str, shape: torch.Size) -> Tensor:
        """Noise of a generator of its own, so that training's draws stay as they are."""
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + zlib.crc32(purpose.encode()))
        return torch.randn(shape, generator=generator)
