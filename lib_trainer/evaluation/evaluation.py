"""Measures a run between its steps, remembers its best weights, and says when more steps do not help."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lib_trainer.adapter.attach import Adapter
from lib_trainer.config.recipe import Recipe
from lib_trainer.dataset.cache_store import LatentStore, TextStore
from lib_trainer.dataset.images import path_below
from lib_trainer.dataset.scan import Scan
from lib_trainer.evaluation.choice import Choice
from lib_trainer.evaluation.constants import COOL_DOWN_SHARE, COST_SHARE, FORWARDS_A_STEP, PARTIAL
from lib_trainer.evaluation.measures import Figures, Parabola
from lib_trainer.evaluation.meter import Meter
from lib_trainer.evaluation.pictures import PictureLosses, odd_pictures
from lib_trainer.evaluation.probes import ProbePlan, describe_held_out
from lib_trainer.evaluation.verdict import Pictures, judge
from lib_trainer.events import Evaluated, Event, Notice, Progress, Step
from lib_trainer.training.denoiser import Denoiser
from lib_trainer.training.loop import Training

# The parabola of loss over strength, as it is shown; a least-loss strength beyond the last is shown as the last.
_CURVE = tuple(place / 10 for place in range(13))
_STRONGEST = 2.0
_DIGITS = 6


def prepare_evaluation(
    training: Training, plan: ProbePlan, scan: Scan, latents: LatentStore, texts: TextStore | None
) -> Generator[Event, None, Evaluation | None]:
    """The evaluation of a run whose adapter is attached; None for a run that is not evaluated."""
    if not plan.trained:
        return None
    meter = Meter(Denoiser(training, texts), plan, scan, latents, training.recipe.evaluation.validation_seed)
    if not meter.is_ready:
        yield Notice("What is learned is not measured: none of the pictures for it can be read.")
        return None
    if text := describe_held_out(plan, scan):
        yield Notice(text)
    root = training.recipe.dataset.train_data_dir
    followed = PictureLosses({index: path_below(scan.samples[index].image, root) for index in plan.concept})
    training.watch_losses = followed.note
    pictures = [scan.samples[index].image for index in plan.concept]
    evaluation = Evaluation(meter, training.adapter, training.recipe, plan, followed, pictures)
    training.rate_share = evaluation.rate_share
    return evaluation


def steps_between(recipe: Recipe, forwards: int) -> int:
    """Steps from one evaluation of so many forward passes to the next: the recipe's, or what costs COST_SHARE."""
    training = recipe.training
    a_step = FORWARDS_A_STEP * training.train_batch_size * training.gradient_accumulation_steps
    return recipe.evaluation.validate_every_n_steps or math.ceil(forwards / (COST_SHARE * a_step))


class Evaluation:
    """What the evaluations of a run have found so far.

    Attributes:
        every: steps from one evaluation to the next; the last step is evaluated too.
        chooses: the run ends when more steps do not help, and its file is that of the best step.
        found: oldest first.
        pictures: files that are trained on and show what is learned.
    """

    def __init__(
        self,
        meter: Meter,
        adapter: Adapter,
        recipe: Recipe,
        plan: ProbePlan,
        followed: PictureLosses,
        pictures: Sequence[Path] = (),
    ) -> None:
        self.every = steps_between(recipe, meter.forwards_each)
        self.chooses = recipe.evaluation.stop_when_learned
        self.found: list[Evaluated] = []
        self.pictures = pictures
        self._meter, self._adapter = meter, adapter
        self._choice, self._followed = Choice(), followed
        self._pictures = Pictures(plan.trigger_word, plan.named, plan.few)
        self._best: dict[str, Tensor] = {}

    def is_due(self, step: Step) -> bool:
        return step.number % self.every == 0 or step.number in (step.total, self.ends_at)

    def evaluate(self, step: Step) -> Iterator[Event]:
        """Measures the weights as they are after `step`."""
        if not self._meter.knows_base:
            # Not before the first step, which it would delay by seconds.
            yield from self._meter.measure_base(step)
            yield Progress("training", step.number, step.total, "Measuring what it has learned")
        figures = self._meter.measure(step.number)
        if self._choice.take(figures) and self.chooses:
            self._best = {name: p.detach().to("cpu", copy=True) for name, p in self._adapter.named_parameters()}
        # Kept before it is told: whoever stops the run now keeps a state that knows of it.
        self.found.append(self._told(figures))
        yield self.found[-1]
        if self.ends_at and self._choice.settled_at == step.number:
            end = min(self.ends_at, step.total)
            yield Notice(f"More steps do not help: the learning rate falls to zero until step {end}, the last.")

    @property
    def ends_at(self) -> int | None:
        """The last step of a run that more steps do not help; None while they may, or where it is not to end then."""
        settled = self._choice.settled_at if self.chooses else None
        return settled and settled + math.ceil(COOL_DOWN_SHARE * settled)

    @property
    def ended(self) -> bool:
        """The last step is taken, and measured."""
        return self.ends_at is not None and self.found[-1].step >= self.ends_at

    def rate_share(self, step: int) -> float:
        """The share of the learning rate that a step has: 1, or from the step on that settled it less and less."""
        settled, end = self._choice.settled_at, self.ends_at
        return 1.0 if settled is None or end is None else max(0.0, (end + 1 - step) / (end - settled))

    @property
    def best_step(self) -> int:
        return self._choice.best_step

    def verdict(self) -> Evaluated | None:
        """The verdict on the file that the run leaves: the best step's where it chooses, else the last step's."""
        if not self.found:
            return None
        last = self.found[-1]
        if not self.chooses:
            return last
        best = next(found for found in self.found if found.step == self.best_step)
        return self._judged(best)

    def restore_best(self) -> None:
        """Puts the weights of the best step back."""
        with torch.no_grad():
            for name, parameter in self._adapter.named_parameters():
                parameter.copy_(self._best[name])

    def pack(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """(the best weights, everything else as JSON), for a resume."""
        found = [asdict(found) for found in self.found]
        return self._best, {"choice": asdict(self._choice), "found": found, "pictures": self._followed.pack()}

    def unpack(self, best: dict[str, Tensor], values: dict[str, Any]) -> None:
        self._best, self._choice = best, Choice(**values["choice"])
        self.found = [Evaluated.from_values(found) for found in values["found"]]
        # A state of an earlier release has none.
        if "pictures" in values:
            self._followed.unpack(values["pictures"])

    def _told(self, figures: Figures) -> Evaluated:
        curve = figures.held_out or figures.trained
        # The parabola of a run that has hardly begun has its least loss anywhere.
        peak = min(figures.least_loss_strength, _STRONGEST)
        gap, bind = figures.memorised, figures.bound
        verdict, advice, more_steps = judge(figures, self._choice, self._pictures)
        left = self._followed.close_window()
        unlearned, at_once = odd_pictures([*(found.left for found in self.found), left])
        return Evaluated(
            step=figures.step,
            learned=round(figures.learned, _DIGITS),
            trained=round(figures.trained.at(1.0), _DIGITS),
            drift=round(figures.drift, _DIGITS),
            memorised=None if gap is None else round(gap, _DIGITS),
            bound=None if bind is None else round(bind, _DIGITS),
            least_loss_strength=round(peak, _DIGITS),
            score=round(self._choice.scores[-1], _DIGITS),
            strength=figures.best()[0],
            best_step=self._choice.best_step,
            best_strength=self._choice.best_strength,
            verdict=verdict,
            advice=advice,
            more_steps=more_steps,
            curve=tuple((strength, round(curve.at(strength), _DIGITS)) for strength in _CURVE),
            at_partial=_at_partial(figures),
            by_picture={name: round(share, _DIGITS) for name, share in figures.by_picture.items()},
            left=left,
            unlearned=tuple(unlearned),
            at_once=tuple(at_once),
        )

    def _judged(self, found: Evaluated) -> Evaluated:
        verdict, advice, more_steps = judge(found, self._choice, self._pictures)
        best = {"best_step": self._choice.best_step, "best_strength": self._choice.best_strength}
        return replace(found, verdict=verdict, advice=advice, more_steps=more_steps, **best)


def _at_partial(figures: Figures) -> dict[str, float]:
    """What `figures_of` needs besides the figures at strength 1."""
    found = {"trained": figures.trained.at(PARTIAL)}
    if figures.held_out:
        found["held_out"] = figures.held_out.at(PARTIAL)
    return {name: round(value, _DIGITS) for name, value in found.items()}


def figures_of(found: Evaluated) -> Figures:
    """The figures of an evaluation that was recorded, so that they can be judged again."""
    partial, held_out = found.at_partial, None
    if found.memorised is not None:
        held_out = Parabola.through(partial["held_out"], found.learned)
    trained = Parabola.through(partial["trained"], found.trained)
    return Figures(found.step, trained, held_out, found.drift, found.bound, found.by_picture)
