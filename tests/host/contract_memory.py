"""A step on the WebUI's own UNet takes what was predicted for it; for real WebUIs, whose UNets are large enough."""

from __future__ import annotations

import math
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.simulation.simulate import simulate
from lib_trainer.events import Finished, Planned
from lib_trainer.memory.plan import DESKTOP_BYTES, GIB, RESERVE_BYTES, Plan
from lib_trainer.memory.planner import plan_from_profile
from lib_trainer.models.placement import MemoryProfile
from tests.fakes.room import WebuiRoom
from tests.host.contract_runs import EVERY_LAYER, drive, pictures, recipe  # noqa: F401 - a fixture
from tests.host.helpers import without_room
from tests.memory.plans import FACE, STYLE, work_of

SIZE_PX = 256


class RealStep:
    """An open model as `simulate` wants it, with contents."""

    without_contents = nullcontext()

    def __init__(self, model: Any) -> None:
        self._model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def weights_off_device(self) -> list[torch.Tensor]:
        return []


class Memory:
    @pytest.mark.parametrize("adapter", [FACE, STYLE], ids=["face", "style"])
    @pytest.mark.parametrize("recomputes", [False, True])
    def test_a_real_step_takes_what_was_predicted(self, room: WebuiRoom, adapter: Any, recomputes: bool) -> None:
        wanted = work_of(adapter=adapter, size_px=SIZE_PX, gradient_checkpointing=recomputes).recipe
        wanted = wanted.with_values({"resolution_px": f"{SIZE_PX},{SIZE_PX}"})

        def work() -> tuple[Plan, int]:
            with room.host.open_model() as model:
                plan = plan_from_profile(model.memory_profile(), wanted)
                width = model.encode_text(["a cat"], 1).pooled
                return plan, simulate(RealStep(model), plan, 0 if width is None else width.shape[1])

        plan, peak_bytes = room.run(work)
        assert abs(plan.parts.total / peak_bytes - 1) < 0.05, (plan.parts, peak_bytes)

    def test_a_whole_run_within_a_budget_gives_everything_back(self, room: WebuiRoom, pictures: Path) -> None:  # noqa: F811
        clean = room.clean_picture()
        budget = {"vram_budget_gb": round(room.run(lambda: _smallest_gb(room)), 2), "fused_backward_pass": True}
        events = drive(room, recipe(pictures, "offloaded", **budget, **EVERY_LAYER))
        planned = next(event for event in events if isinstance(event, Planned))
        assert planned.total_bytes <= planned.budget_bytes
        assert "in 8 bits" in planned.text and "fused backward pass" in planned.text.lower()
        assert isinstance(events[-1], Finished)
        assert room.picture() == clean
        assert room.picture("a photo <lora:offloaded:1>") != clean


class SelectedFiles:
    """For the real ones of the Forge family; a fake's checkpoints are no safetensors files."""

    def test_a_checkpoint_that_is_only_selected_is_known_by_its_file(self, room: WebuiRoom) -> None:
        from lib_trainer.host.forge.inspect import profile_of_file

        def loaded() -> tuple[MemoryProfile, Path]:
            with room.host.open_model() as model:
                return model.memory_profile(), Path(room.model.sd_checkpoint_info.filename)

        profile, path = room.run(loaded)
        assert without_room(profile_of_file(path, None)) == without_room(profile)


def _smallest_gb(room: WebuiRoom) -> float:
    """The smallest card that the loaded checkpoint can be trained on in 8 bits, nothing streamed."""
    with room.host.open_model() as model:
        layers = sum(math.prod(layer.shape) for layer in model.adaptable_layers())
    # Too little for them in 16 bits.
    return (1.8 * layers + DESKTOP_BYTES + RESERVE_BYTES) / GIB
