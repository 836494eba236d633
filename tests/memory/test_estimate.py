"""The prediction against steps that were followed storage by storage, without and with contents."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest
import torch

from benchmarks.simulation.simulate import simulate
from benchmarks.simulation.unet import UNetAlone, build_unet, pooled_width, simulated_unet
from lib_trainer.config.optimization import OPTIMIZERS
from lib_trainer.memory.optimizer_state import gathered_bytes, optimizer_bytes
from lib_trainer.memory.plan import Budget, Plan, make_plan
from lib_trainer.models.families import SD1, SDXL, Family, UNetShape
from lib_trainer.models.optimizers import kept_bytes
from lib_trainer.training.optimizer import make_optimizer
from tests.memory.plans import FACE, STYLE, plan_of, work_of

# As wide as the real ones, with fewer and shallower blocks.
SD1_SMALL = UNetShape((320, 640), 1, (1, 1), 1, 768, (8, 8))
SDXL_SMALL = UNetShape((320, 320, 320), 2, (0, 1, 2), 2, 2048, (5, 5, 5), linear_projection=True, pooled_dim=2816)
SMALL_SD1, SMALL_SDXL = replace(SD1, shape=SD1_SMALL), replace(SDXL, shape=SDXL_SMALL)


def simulated(plan: Plan, steps: int = 1) -> int:
    shape = plan.work.shape
    with simulated_unet(shape, plan.work.compute) as model:
        return simulate(model, plan, pooled_width(shape), steps=steps)


def error(predicted: int, measured: int) -> float:
    return abs(predicted / measured - 1)


# Few blocks follow the same rules as many. Full-sized: SD 1.x here, SDXL in `test_cuda_allocator.py`.
@pytest.mark.parametrize(
    ("family", "size_px", "adapter", "card", "training"),
    [
        (SD1, 512, FACE, 8, {}),
        (SMALL_SD1, 512, STYLE, 0, {"gradient_checkpointing": True}),
        (SMALL_SD1, 896, FACE, 2.2, {}),
        (SMALL_SD1, 768, STYLE, 3, {"train_batch_size": 4}),
        (SMALL_SD1, 640, FACE, 8, {"gradient_accumulation_steps": 2, "optimizer": "AdamW"}),
        (SMALL_SD1, 512, FACE, 0, {"fused_backward_pass": True, "optimizer": "Adafactor"}),
        (SMALL_SD1, 512, replace(STYLE, dora_wd=True), 0, {"gradient_checkpointing": True}),
        (SMALL_SDXL, 768, STYLE, 3, {}),
    ],
)
def test_the_prediction_is_what_a_simulated_step_takes(
    family: Family, size_px: int, adapter: Any, card: float, training: dict[str, Any]
) -> None:
    plan = plan_of(family, size_px, Budget.of_card(card) if card else None, adapter=adapter, **training)
    assert error(plan.parts.total, simulated(plan)) < 0.05


@pytest.mark.parametrize(
    ("family", "size_px", "training", "evaluation", "steps"),
    [
        # Gradients of the step are there when the preserved picture comes: more than a step without it takes.
        (SMALL_SD1, 512, {"gradient_checkpointing": True}, {"prior_preservation": True}, 1),
        (SMALL_SD1, 512, {"train_batch_size": 2}, {"validate_every_n_steps": 1}, 1),
        # What the base is asked takes less than the step that follows, and of the first step something is left.
        (SMALL_SD1, 256, {"fused_backward_pass": True}, {"mode": "slider"}, 2),
    ],
)
def test_preservation_evaluations_and_the_bases_answers_are_predicted(
    family: Family, size_px: int, training: dict[str, Any], evaluation: dict[str, Any], steps: int
) -> None:
    work = work_of(family, size_px, **training)
    with_it = make_plan(replace(work, recipe=work.recipe.with_values(evaluation)), None)
    assert error(with_it.parts.total, simulated(with_it, steps)) < 0.05


def test_a_real_step_takes_what_the_simulated_one_does() -> None:
    settings = {"compute": torch.float32, "weight_bytes": 4, "gradient_checkpointing": True}
    plan, shape = plan_of(SMALL_SD1, 128, None, adapter=STYLE, **settings), SD1_SMALL
    with ExitStack() as undo:
        model = UNetAlone(build_unet(shape, torch.float32), torch.device("cpu"), undo)
        real = simulate(model, plan, pooled_width(shape), steps=1)
    assert error(simulated(plan), real) < 0.05
    assert error(plan.parts.total, real) < 0.05


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("shape", [(32, 1280), (8, 8, 3, 3), (320,), (4097,)])
def test_what_an_optimizer_keeps_is_known(name: str, shape: tuple[int, ...]) -> None:
    plan = plan_of(optimizer=name)
    parameter = torch.nn.Parameter(torch.randn(shape))
    made, notice = make_optimizer(plan.recipe.training, [{"params": [parameter], "lr": 1e-3}], torch.device("cpu"))
    if notice:
        pytest.skip(notice)
    parameter.grad = torch.randn(shape)
    made.step()
    # Counters have a few bytes.
    own = kept_bytes(made, parameter)
    assert own == pytest.approx(optimizer_bytes(name, shape), rel=0.01, abs=8)


@pytest.mark.parametrize(
    ("name", "elements", "gathered"),
    [("AdamW8bit", 10, 40), ("bitsandbytes.adamw8bit", 2**30, 2**24), ("AdamW", 10, 0), ("AdaMuon", 10, 0)],
)
def test_gradients_that_are_gathered_for_a_launch_are_counted(name: str, elements: int, gathered: int) -> None:
    """Also of an optimizer that is named otherwise, or is on no list."""
    assert gathered_bytes(name, elements) == gathered
