"""On a graphics card: what is predicted and simulated against what the allocator counts."""

from __future__ import annotations

from contextlib import ExitStack, nullcontext
from dataclasses import replace

import pytest
import torch

from lib_trainer.adapter.attach import attached, new_adapter
from lib_trainer.dataset.batches import Batch
from lib_trainer.events import Step
from lib_trainer.families import SD1
from lib_trainer.host.base import SizeCond, TextCond
from lib_trainer.host.standalone_empty import EmptyModel, build_unet
from lib_trainer.memory.plan import Plan, Room
from lib_trainer.training.loop import Training, fit
from tests.memory.plans import FACE, STYLE, plan_of
from tests.memory.test_predict import SD1_SMALL
from tests.training.small import schedule_of

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a graphics card that torch can use"),
]
SMALL = replace(SD1, unet=SD1_SMALL)


@pytest.mark.parametrize("adapter", [FACE, STYLE], ids=["face", "style"])
@pytest.mark.parametrize("card_gb", [24, 2.6, 2.2])
def test_the_allocators_peak_is_what_was_predicted(adapter, card_gb: float) -> None:
    plan = plan_of(SMALL, 512, Room.of_card(card_gb), adapter=adapter, optimizer="AdamW8bit")
    measured = peak_on_card(plan)
    assert abs(plan.parts.total / measured - 1) < 0.05, (plan.savings, plan.parts, measured)


def peak_on_card(plan: Plan) -> int:
    """Peak of three whole steps, the optimizer's included, as torch counts it."""
    recipe, device = plan.recipe, torch.device("cuda")
    recipe = replace(recipe, training=replace(recipe.training, max_train_steps=3))
    with ExitStack() as undo:
        model = EmptyModel(build_unet(SD1_SMALL, plan.work.compute), nullcontext(), undo)
        model.device = device
        model.prepare_training(plan.placement, text_encoder=False)
        layers = model.adaptable_layers()
        adapter = new_adapter(layers, recipe.adapter, 0)
        latents = torch.zeros(1, 4, plan.work.height_px // 8, plan.work.width_px // 8)
        text = TextCond(torch.zeros(1, 77, SD1_SMALL.context_dim))
        batch = Batch(latents, SizeCond(torch.zeros(1, 6)), ("",), text)
        with attached(adapter, layers, model.read_weight):
            steps = list(fit(Training(model, adapter, recipe, schedule_of(recipe), lambda _: batch)))
    return max(step.peak_bytes for step in steps if isinstance(step, Step))
