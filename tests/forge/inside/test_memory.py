"""A real step on Forge's own UNet takes what was predicted for it."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch

from lib_trainer.memory.plan import Plan
from lib_trainer.memory.predict import predict_kept
from lib_trainer.planning import plan_from_outlook
from lib_trainer.simulation import Measured, simulate
from tests.fakes.forge_room import ForgeRoom
from tests.memory.plans import FACE, STYLE, work_of

SIZE_PX = 256


class RealStep:
    """A borrowed model as `simulate` wants it, with contents."""

    no_contents = nullcontext()

    def __init__(self, model: Any) -> None:
        self._model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def weights_elsewhere(self) -> list[torch.Tensor]:
        return []


@pytest.mark.parametrize("adapter", [FACE, STYLE], ids=["face", "style"])
@pytest.mark.parametrize("recomputes", [False, True])
def test_a_real_step_takes_what_was_predicted(forge: ForgeRoom, adapter: Any, recomputes: bool) -> None:
    recipe = work_of(adapter=adapter, size_px=SIZE_PX, gradient_checkpointing=recomputes).recipe
    recipe = recipe.with_values({"resolution_px": f"{SIZE_PX},{SIZE_PX}"})

    def work() -> tuple[Plan, Measured]:
        with forge.host.open_model() as model:
            plan = plan_from_outlook(model.outlook(), recipe)
            width = model.encode_text(["a cat"], 1).pooled
            return plan, simulate(RealStep(model), plan, 0 if width is None else width.shape[1])

    plan, measured = forge.run(work)
    kept = predict_kept(plan.work, plan.savings)
    assert abs(plan.parts.total / measured.peak_bytes - 1) < 0.05, (plan.parts, measured)
    assert abs(kept / measured.kept_bytes - 1) < 0.05, (kept, measured)
