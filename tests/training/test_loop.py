from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

from lib_trainer.adapter.attach import attached, new_adapter
from lib_trainer.events import Notice
from lib_trainer.models.base import SizeCond, TextCond
from lib_trainer.training import loop
from lib_trainer.training.loop import Training, fit
from lib_trainer.training.loss_scale import LossScale
from lib_trainer.training.optimizer_step import Diverged, OptimizerStep
from tests.training.small import PICTURES, InfiniteGradient, make_batch, one_layer_model, recipe_of, schedule_of, train


def test_steps_are_numbered_and_the_loss_falls() -> None:
    _, steps, _ = train(recipe_of(max_train_steps=150))
    assert [step.number for step in steps] == list(range(1, 151))
    assert {step.total for step in steps} == {150}
    assert [step.epoch for step in steps[:9]] == [1, 1, 1, 1, 2, 2, 2, 2, 3]
    assert sum(step.loss for step in steps[-30:]) < 0.8 * sum(step.loss for step in steps[:30])


def test_the_same_seed_gives_the_same_weights_and_another_gives_others() -> None:
    one, two, other = (train(recipe_of(seed=seed))[0] for seed in (3, 3, 4))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_accumulated_passes_add_up_to_the_mean_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[list[Tensor]] = []

    def record(update: OptimizerStep, loss: Tensor, number: int) -> tuple[float, bool]:
        parameters = [p for group in update._optimizer.param_groups for p in group["params"]]
        taken.append([p.grad.clone() for p in parameters])
        update._optimizer.zero_grad()
        return float(loss), True

    monkeypatch.setattr(OptimizerStep, "finish", record)
    train(recipe_of(max_train_steps=4))
    single, taken[:] = taken[:], []
    _, steps, _ = train(recipe_of(max_train_steps=1, gradient_accumulation_steps=4))
    assert len(steps) == len(taken) == 1
    for i, accumulated in enumerate(taken[0]):
        mean = torch.stack([gradients[i] for gradients in single]).mean(0)
        torch.testing.assert_close(accumulated, mean, rtol=1e-5, atol=1e-7)
        assert float(mean.abs().max()) > 0 or i > 0


def test_the_last_step_of_an_epoch_takes_what_is_left() -> None:
    _, steps, model = train(recipe_of(max_train_steps=0, epoch=2, gradient_accumulation_steps=3))
    assert [step.epoch for step in steps] == [1, 1, 2, 2]
    assert len(model.seen) == 2 * PICTURES


def test_a_loss_that_is_no_number_stops_before_the_weights_are_spoiled() -> None:
    model = one_layer_model()
    whole = model.predict

    def break_down(x_t: Tensor, t: Tensor, text: TextCond, sizes: SizeCond) -> Tensor:
        return whole(x_t, t, text, sizes) * (float("nan") if len(model.seen) > 5 else 1.0)

    model.predict = break_down
    good, _, _ = train(recipe_of(max_train_steps=5))
    adapter = new_adapter(model.layers, recipe_of().adapter, 0)
    with attached(adapter, model.layers, model.read_weight), pytest.raises(Diverged, match="step 6"):
        list(fit(Training(model, adapter, recipe_of(), schedule_of(recipe_of()), make_batch)))
    assert all(torch.equal(a, b) for a, b in zip(adapter.parameters(), good.parameters(), strict=True))


def test_gradients_that_are_no_numbers_stop_it_too() -> None:
    model = one_layer_model()
    whole = model.predict
    model.predict = lambda *inputs: InfiniteGradient.apply(whole(*inputs))
    with pytest.raises(Diverged, match="step 1"):
        train(recipe_of(), model)


def test_an_optimizer_that_stands_in_is_announced() -> None:
    model, recipe = one_layer_model(), recipe_of()
    adapter = new_adapter(model.layers, recipe.adapter, 0)
    training = Training(model, adapter, recipe, schedule_of(recipe), make_batch)
    training.notice = "AdamW is used instead."
    assert next(fit(training)) == Notice("AdamW is used instead.")


def test_half_precision_trains_with_loss_scaling(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fp16 way of a graphics card, simulated on the CPU."""
    _, full, _ = train(recipe_of(max_train_steps=30))
    monkeypatch.setattr(loop, "compute_dtype", lambda *_: torch.float16)
    # A scale at which no gradient overflows: no step is left out.
    monkeypatch.setattr(loop, "LossScale", partial(LossScale, value=2.0**13))
    adapter, half, model = train(recipe_of(max_train_steps=30))
    assert {x.dtype for x in model.seen} == {torch.float16}
    assert {p.dtype for p in adapter.parameters()} == {torch.float32}
    for a, b in zip(full, half, strict=True):
        assert b.loss == pytest.approx(a.loss, rel=5e-3)


def test_a_gradient_that_overflows_is_skipped_and_scaled_less(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "compute_dtype", lambda *_: torch.float16)
    model, recipe = one_layer_model(), recipe_of(max_train_steps=3, lr_scheduler="linear")
    adapter = new_adapter(model.layers, recipe.adapter, 0)
    with attached(adapter, model.layers, model.read_weight):
        training = Training(model, adapter, recipe, schedule_of(recipe), make_batch)
        scaler = LossScale(True, 2.0**40)
        training.step_method = OptimizerStep(training.optimizer, scaler, 1.0)
        start = [p.detach().clone() for p in adapter.parameters()]
        rates = [step.learning_rate for step in fit(training)]
    assert scaler.value < 2.0**40
    assert rates[0] == rates[1], "a step that was not taken must not move the schedule"
    assert all(torch.isfinite(p).all() for p in adapter.parameters())
    assert all(torch.equal(a, b) for a, b in zip(start, adapter.parameters(), strict=True))


@pytest.mark.parametrize("fused", [False, True])
def test_no_norm_limit_clips_nothing(fused: bool) -> None:
    unlimited, huge, small = (
        [p.detach() for p in train(recipe_of(max_grad_norm=norm, fused_backward_pass=fused))[0].parameters()]
        for norm in (0.0, 1e9, 1e-6)
    )
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(unlimited, huge, strict=True))
    assert not all(torch.allclose(a, b, atol=1e-6) for a, b in zip(unlimited, small, strict=True))
