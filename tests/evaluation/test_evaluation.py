"""What evaluations find on the smallest model, what they leave alone, and how often they come."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest
import torch

from lib_trainer.adapter.attach import attached, new_adapter
from lib_trainer.config.evaluation import EvaluationConfig
from lib_trainer.config.recipe import AdapterConfig, Recipe
from lib_trainer.dataset.cache_store import LatentStore, TextStore
from lib_trainer.evaluation.choice import Choice
from lib_trainer.evaluation.evaluation import Evaluation, figures_of, prepare_evaluation, steps_between
from lib_trainer.evaluation.probes import plan_probes
from lib_trainer.events import Evaluated, Notice, Step
from lib_trainer.training.denoiser import Denoiser, Query
from lib_trainer.training.loop import Training, fit
from tests.training.small import CONTEXT, make_batch, one_layer_model, recipe_of, schedule_of


class AnyText(dict):
    """The same encoded text for every caption."""

    def __missing__(self, caption: str) -> dict[str, torch.Tensor]:
        return {"context": CONTEXT}


def evaluated_recipe(stop: bool = False, **training: object) -> Recipe:
    recipe = recipe_of(**training)
    # Measured but not held out, so that training draws what it draws without.
    return replace(recipe, evaluation=EvaluationConfig(stop, validate_every_n_steps=3, held_out="none"))


def training_of(recipe: Recipe) -> Training:
    model = one_layer_model()
    adapter = new_adapter(model.layers, recipe.adapter, recipe.training.seed)
    return Training(model, adapter, recipe, schedule_of(recipe), make_batch)


def evaluation_of(training: Training, held_out: str = "none") -> Evaluation:
    schedule = training.schedule
    entries = {
        (draw.sample, 0): {"latents": batch.latents[0], "size": batch.sizes.pixels[0]}
        for part in schedule.epoch(1) for draw in part for batch in [make_batch((draw,))]
    }  # fmt: skip
    recipe = replace(training.recipe, evaluation=replace(training.recipe.evaluation, held_out=held_out))
    plan = plan_probes(schedule.scan, recipe)
    events = prepare_evaluation(training, plan, schedule.scan, LatentStore(schedule, entries), TextStore(AnyText()))
    while True:
        try:
            next(events)
        except StopIteration as end:
            return end.value


def run(recipe: Recipe, *, evaluate: bool) -> tuple[Training, list[Evaluated], list[float]]:
    training = training_of(recipe)
    found: list[Evaluated] = []
    losses = []
    with attached(training.adapter, training.model.layers, training.model.read_weight):
        evaluation = evaluation_of(training) if evaluate else None
        for event in fit(training):
            if isinstance(event, Step):
                losses.append(event.loss)
                if evaluation and evaluation.is_due(event):
                    found += [event for event in evaluation.evaluate(event) if isinstance(event, Evaluated)]
    return training, found, losses


@pytest.mark.parametrize("fused", [False, True])
def test_evaluations_leave_training_as_it_is(fused: bool) -> None:
    """Dropout and noise draw from random numbers that an evaluation must not touch."""
    steps = {"fused_backward_pass": fused} if fused else {"gradient_accumulation_steps": 2}
    recipe = replace(
        evaluated_recipe(noise_offset=0.1, **steps), adapter=AdapterConfig(algo="locon", conv_dim=2, rank_dropout=0.3)
    )
    plain, none, losses = run(recipe, evaluate=False)
    measured, found, same = run(recipe, evaluate=True)
    assert not none and [event.step for event in found] == [3, 6, 9, 12] and same == losses
    pairs = zip(plain.adapter.parameters(), measured.adapter.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_what_is_learned_grows() -> None:
    _, found, _ = run(evaluated_recipe(), evaluate=True)
    assert found[0].learned > 0 and found[-1].learned > found[0].learned and found[-1].drift > 0
    assert found[-1].memorised is None and set(found[-1].by_picture) <= {f"{i}.png" for i in range(4)}
    assert all(at.trained == at.learned for at in found), "no picture is held out"
    best = [at for at in found if at.best_step == at.step]
    assert best and all(at.strength == at.best_strength for at in best)
    shown = dict(found[-1].curve)
    assert shown[0.0] == 0 and shown[1.0] == pytest.approx(found[-1].learned, abs=1e-5)
    # The small model knows no text: the trigger word cannot add anything.
    assert found[-1].bound == pytest.approx(found[-1].bound) and found[-1].verdict


def test_held_out_pictures_are_named_and_compared() -> None:
    training = training_of(evaluated_recipe())
    with attached(training.adapter, training.model.layers, training.model.read_weight):
        evaluation = evaluation_of(training, held_out="2.png")
        *_, found = evaluation.evaluate(Step(12, 12, 1, 0.0, 0.0, 0.0))
    assert found.memorised == 0 and "2.png" in found.by_picture
    assert found.learned == found.drift == 0, "an adapter that is new changes nothing"


@pytest.mark.parametrize("held_out", ["none", "2.png"])
def test_what_was_recorded_can_be_judged_again(held_out: str, monkeypatch: pytest.MonkeyPatch) -> None:
    training, measured = training_of(evaluated_recipe()), []
    take = Choice.take
    monkeypatch.setattr(Choice, "take", lambda choice, figures: measured.append(figures) or take(choice, figures))
    with attached(training.adapter, training.model.layers, training.model.read_weight):
        list(fit(training))
        *_, found = evaluation_of(training, held_out=held_out).evaluate(Step(12, 12, 1, 0.0, 0.0, 0.0))
    again, (figures,) = figures_of(Evaluated.from_values(json.loads(json.dumps(asdict(found))))), measured
    assert again.drift > 0 and (again.held_out is None) == (held_out == "none")
    for strength in (0.5, 1.0):
        assert again.score(strength) == pytest.approx(figures.score(strength), abs=1e-4)
    assert again.learned == pytest.approx(figures.learned, abs=1e-5) and again.bound == found.bound


def test_the_base_is_measured_when_it_is_first_needed() -> None:
    """Nobody waits for it before the first step; after it the base says the same."""
    training, step = training_of(evaluated_recipe()), Step(12, 12, 1, 0.0, 0.0, 0.0)
    with attached(training.adapter, training.model.layers, training.model.read_weight):
        early, late = evaluation_of(training), evaluation_of(training)
        assert not training.model.seen
        list(early._meter.measure_base(step))
        assert training.model.seen
        list(fit(training))
        (found,), (*told, same) = early.evaluate(step), late.evaluate(step)
    assert [event.note for event in told] and found == same


def test_the_best_weights_come_back() -> None:
    training = training_of(evaluated_recipe(stop=True))
    with attached(training.adapter, training.model.layers, training.model.read_weight):
        evaluation = evaluation_of(training)
        best: list[torch.Tensor] = []
        for event in fit(training):
            if isinstance(event, Step) and evaluation.is_due(event):
                list(evaluation.evaluate(event))
                if evaluation.best_step == event.number:
                    best = [parameter.detach().clone() for parameter in training.adapter.parameters()]
        with torch.no_grad():
            for parameter in training.adapter.parameters():
                parameter.zero_()
        evaluation.restore_best()
    assert all(torch.equal(a, b) for a, b in zip(best, training.adapter.parameters(), strict=True))
    assert evaluation.verdict().best_step == evaluation.best_step


def test_what_was_found_can_be_kept() -> None:
    training = training_of(evaluated_recipe(stop=True))
    with attached(training.adapter, training.model.layers, training.model.read_weight):
        first, second = evaluation_of(training), evaluation_of(training)
        list(first.evaluate(Step(3, 12, 1, 0.0, 0.0, 0.0)))
        best, values = first.pack()
        second.unpack(best, json.loads(json.dumps(values)))
        for evaluation in (first, second):
            list(evaluation.evaluate(Step(6, 12, 1, 0.0, 0.0, 0.0)))
    assert first.found == second.found and first.verdict() == second.verdict()


def test_the_adapters_strength_is_its_own_again() -> None:
    training = training_of(evaluated_recipe())
    (factors,) = training.adapter.layers.values()
    factors.strength, factors.row_mask = 0.5, torch.ones(4)
    with training.adapter.at(0.0):
        assert factors.strength == 0 and factors.row_mask is None
    assert factors.strength == 0.5 and factors.row_mask is not None


def test_strength_nought_is_the_base_whatever_was_learned() -> None:
    training = training_of(recipe_of())
    query = Query(torch.randn(4, 8, 8), 250, "word", torch.zeros(6))
    denoiser = Denoiser(training, TextStore(AnyText()))
    with attached(training.adapter, training.model.layers, training.model.read_weight):
        list(fit(training))
        base, full = (denoiser.predict([query], strength)[0] for strength in (0.0, 1.0))
    expected = training.model.unet(query.x_t[None], None, None)[0]
    assert torch.equal(base, expected.detach()) and not torch.equal(full, base)


@pytest.mark.parametrize("prediction", ["epsilon", "v"])
def test_a_perfect_base_draws_its_picture(prediction: str) -> None:
    """A model that knows the one clean picture draws it, from any noise."""
    training = training_of(recipe_of())
    clean, model = torch.randn(4, 8, 8), training.model

    def knows(x_t: torch.Tensor, t: torch.Tensor, *_rest: object) -> torch.Tensor:
        alpha = model.alphas_cumprod[t].reshape(-1, 1, 1, 1)
        epsilon = (x_t - alpha.sqrt() * clean) / (1 - alpha).sqrt()
        return epsilon if prediction == "epsilon" else alpha.sqrt() * epsilon - (1 - alpha).sqrt() * clean

    model.prediction, model.predict = prediction, knows
    denoiser = Denoiser(training, TextStore(AnyText()))
    drawn = denoiser.draw(["word"], [torch.randn(4, 8, 8)], torch.zeros(6))
    assert torch.allclose(drawn[0], clean, atol=1e-3)


def test_how_often_a_run_is_evaluated() -> None:
    recipe = Recipe().with_values({"stop_when_learned": True})
    # 28 forwards in 3.5 % of steps of 3 forwards.
    assert steps_between(recipe, 28) == 267
    assert steps_between(recipe.with_values({"train_batch_size": 4, "gradient_accumulation_steps": 2}), 28) == 34
    assert steps_between(recipe.with_values({"validate_every_n_steps": 7}), 28) == 7


def test_a_run_without_probes_is_not_evaluated() -> None:
    training = training_of(replace(recipe_of(), evaluation=EvaluationConfig()))
    assert evaluation_of(training) is None
    training = training_of(evaluated_recipe())
    plan = plan_probes(training.schedule.scan, training.recipe)
    empty = LatentStore(training.schedule, {})
    events = list(prepare_evaluation(training, plan, training.schedule.scan, empty, TextStore(AnyText())))
    assert [type(event) for event in events] == [Notice]
