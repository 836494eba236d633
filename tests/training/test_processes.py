"""Several processes train as one does with as many pictures, decide alike, and end together."""

from __future__ import annotations

import os
import signal
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lib_trainer.adapter.attach import attached, new_adapter
from lib_trainer.config.recipe import Recipe
from lib_trainer.errors import UserError
from lib_trainer.events import Step
from lib_trainer.models.base import CheckpointInfo, Layer
from lib_trainer.training.loop import Training, fit
from lib_trainer.training.loss_scale import LossScale
from lib_trainer.training.optimizer_step import Diverged, FusedBackwardStep, OptimizerStep
from lib_trainer.training.processes import ALONE, Processes, for_all, per_process
from lib_trainer.training.resume_state import load_state, save_state
from tests.side_by_side import together
from tests.training.small import InfiniteGradient, SmallModel, make_batch, recipe_of, schedule_of

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

STEPS = 5
CLOSE = {"rtol": 0, "atol": 1e-6}


class ThreeConvs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.convs = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1) for _ in range(3))

    def forward(self, x: Tensor, t: Tensor, context: Tensor) -> Tensor:
        for conv in self.convs:
            x = torch.tanh(conv(x))
        return x


def small_model() -> SmallModel:
    unet = ThreeConvs()
    layers = [
        Layer(f"lora_unet_conv_{number}", conv, "conv2d", (4, 4, 3, 3), padding=(1, 1))
        for number, conv in enumerate(unet.convs)
    ]
    model = SmallModel(unet, layers)
    model.checkpoint = CheckpointInfo("small", "0" * 64)
    return model


def fit_small(
    processes: Processes, recipe: Recipe, state: Path | None = None, until: int = STEPS, model: SmallModel | None = None
) -> dict[str, Any]:
    """Trains up to a step, from `state` on where one is given, and the first process saves it there again.

    Returns:
        weights, losses, and the gradients that each step of the optimizer took.
    """
    model = model or small_model()
    adapter = new_adapter(model.layers, recipe.adapter, recipe.training.seed)
    found: dict[str, Any] = {"losses": [], "gradients": []}
    with attached(adapter, model.layers, model.read_weight):
        training = Training(model, adapter, recipe, schedule_of(recipe), make_batch, processes=processes)
        training.optimizer.register_step_pre_hook(
            lambda optimizer, *_: found["gradients"].extend(
                p.grad.clone() for group in optimizer.param_groups for p in group["params"] if p.grad is not None
            )
        )
        with closing(fit(training, load_state(state, training, "") if state else 0)) as events:
            for event in (event for event in events if isinstance(event, Step)):
                found["losses"].append(event.loss)
                if event.number == until:
                    break
        if state and not processes.rank:
            save_state(state, training, until, "")
    return {**found, "weights": [p.detach().clone() for p in adapter.parameters()]}


def assert_close(one: list[Tensor], two: list[Tensor]) -> None:
    assert len(one) == len(two) and one
    for a, b in zip(one, two, strict=True):
        torch.testing.assert_close(a, b, **CLOSE)


@pytest.mark.parametrize(
    ("count", "accumulated", "settings"),
    [
        (2, 2, {"ema_decay": 0.9, "loraplus_lr_ratio": 4.0, "scale_weight_norms": 0.5}),
        (4, 4, {"max_grad_norm": 0.01}),
        # Steps of three micro-batches, and of one at the end of an epoch: one process has nothing to do there.
        (2, 3, {}),
        # A layer that one process drops may train in the other.
        (2, 2, {"module_dropout": 0.3, "seed": 2}),
    ],
)
def test_they_train_as_one_process_with_as_many_pictures(count: int, accumulated: int, settings: dict) -> None:
    recipe = recipe_of(max_train_steps=STEPS, gradient_accumulation_steps=accumulated, **settings)
    alone = fit_small(ALONE, recipe)
    for found in (all_of_them := together(count, lambda processes: fit_small(processes, recipe))):
        assert_close(found["gradients"], alone["gradients"])
        assert_close(found["weights"], alone["weights"])
        assert found["losses"] == pytest.approx(alone["losses"], abs=1e-6)
        assert all(map(torch.equal, found["weights"], all_of_them[0]["weights"]))


@pytest.mark.parametrize("count", [2, 3])
def test_a_fused_backward_pass_sums_layer_by_layer(count: int) -> None:
    """By three the last of an epoch's four micro-batches has two processes wait."""
    settings = {"max_train_steps": STEPS, "gradient_accumulation_steps": count, "max_grad_norm": 0.0}
    alone = fit_small(ALONE, recipe_of(**settings))
    fused = together(count, lambda processes: fit_small(processes, recipe_of(**settings, fused_backward_pass=True)))
    for found in fused:
        assert_close(found["weights"], alone["weights"])
        assert found["losses"] == pytest.approx(alone["losses"], abs=1e-6)


def test_a_run_goes_on_by_one_process_and_by_two_again(tmp_path: Path) -> None:
    recipe = recipe_of(max_train_steps=9, gradient_accumulation_steps=2)
    unbroken = fit_small(ALONE, recipe, until=9)
    state = tmp_path / "state"
    together(2, lambda processes: fit_small(processes, recipe, state, until=3))
    fit_small(ALONE, recipe, state, until=6)
    for found in together(2, lambda processes: fit_small(processes, recipe, state, until=9)):
        assert_close(found["weights"], unbroken["weights"])
        assert found["losses"] == pytest.approx(unbroken["losses"][6:], abs=1e-6)


def test_a_loss_that_is_no_number_in_one_process_ends_all_with_the_weights_before() -> None:
    recipe = recipe_of(max_train_steps=STEPS, gradient_accumulation_steps=2)

    def work(processes: Processes) -> tuple[Exception | None, list[Tensor]]:
        model = small_model()
        whole, adapter = model.predict, new_adapter(model.layers, recipe.adapter, 0)
        broken = processes.rank == 1
        model.predict = lambda *inputs: whole(*inputs) * (float("nan") if broken and len(model.seen) > 1 else 1.0)
        with attached(adapter, model.layers, model.read_weight):
            try:
                list(fit(Training(model, adapter, recipe, schedule_of(recipe), make_batch, processes=processes)))
            except Diverged as error:
                return str(error), [p.detach() for p in adapter.parameters()]

    (first, weights), (second, others) = together(2, work)
    assert first == second and "step 2" in first
    assert all(map(torch.equal, weights, others)) and all(torch.isfinite(p).all() for p in weights)


@pytest.mark.parametrize("kind", [OptimizerStep, FusedBackwardStep])
def test_an_overflow_in_one_process_lowers_the_loss_scale_in_all(kind: type) -> None:
    def work(processes: Processes) -> tuple[float, list[Tensor]]:
        layer = small_model().unet.convs[0].requires_grad_(True)
        optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1)
        scaler = LossScale(True, 1024.0)
        step_method = kind(optimizer, scaler, 1.0, processes)
        with step_method.hooked():
            answer = layer(torch.ones(1, 4, 8, 8))
            loss = (InfiniteGradient.apply(answer) if processes.rank else answer).square().mean()
            step_method.backward(loss)
            step_method.finish(loss.detach(), 1)
        return scaler.value, [p.detach() for p in layer.parameters()]

    for scale, weights in together(2, work):
        assert scale == 512.0
        assert all(map(torch.equal, weights, small_model().unet.convs[0].parameters()))


def test_another_order_of_layers_is_noticed_before_it_spoils_anything() -> None:
    def work(processes: Processes) -> None:
        for order in ([0, 1], [0, 1], [1, 0] if processes.rank else [0, 1]):
            processes.begin_step()
            for number in order:
                processes.sum_layer(number, [torch.ones(2)])

    first, second = together(2, work)
    assert "ProcessLost" in first and "another order" in second


@pytest.mark.parametrize("killed", [0, 1])
def test_when_one_is_killed_the_others_end(killed: int) -> None:
    recipe = recipe_of(max_train_steps=50, gradient_accumulation_steps=3)

    def work(processes: Processes) -> object:
        model = small_model()
        whole = model.predict

        def predict(*inputs: Any) -> Tensor:
            if processes.rank == killed and len(model.seen) > 2:
                os.kill(os.getpid(), signal.SIGKILL)
            return whole(*inputs)

        model.predict = predict
        return fit_small(processes, recipe, model=model)

    found = together(3, work)
    assert found.pop(killed) is None
    assert all("ProcessLost" in error for error in found), found


def test_a_run_keeps_its_steps_when_other_processes_share_them() -> None:
    two, three = Processes(), Processes()
    two.count, three.count = 2, 3
    recipe = recipe_of(gradient_accumulation_steps=2)
    assert per_process(recipe, ALONE) == for_all(recipe, ALONE, begun=None) == recipe
    begun = for_all(recipe, two, begun=None)
    assert begun.training.gradient_accumulation_steps == 4
    assert per_process(begun, two) == recipe
    for processes, own in ((ALONE, 4), (three, 2)):
        mine = per_process(begun, processes)
        assert mine.training.gradient_accumulation_steps == own
        assert for_all(mine, processes, begun=begun) == begun


def test_what_a_fused_backward_pass_cannot_share_is_refused() -> None:
    two = Processes()
    two.count = 2
    begun = for_all(recipe_of(fused_backward_pass=True), two, begun=None)
    assert per_process(begun, two) == recipe_of(fused_backward_pass=True)
    with pytest.raises(UserError, match="nproc_per_node=2"):
        per_process(begun, ALONE)
    with pytest.raises(UserError, match="module_dropout=0"):
        per_process(recipe_of(fused_backward_pass=True, module_dropout=0.1), two)
