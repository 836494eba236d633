"""Ten steps give the loss curve of kohya's sd-scripts, on the same noise and from the same start."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from lib_trainer.adapter.attach import attached, new_adapter
from lib_trainer.training.loop import Training, fit
from tests.training.sd_scripts import CASES, STEPS, layers_for, recipe_for, their_losses
from tests.training.small import make_batch, schedule_of
from tests.training.test_reference import Unet, farthest, model_of

RECORDED = json.loads((Path(__file__).parents[1] / "data" / "sd_scripts_losses.json").read_text("utf-8"))


def our_losses(case: str) -> list[float]:
    recipe, model = recipe_for(case), model_of(Unet())
    layers = layers_for(recipe, model)
    adapter = new_adapter(layers, recipe.adapter, recipe.training.seed, model.read_weight)
    with attached(adapter, layers, model.read_weight):
        return [event.loss for event in fit(Training(model, adapter, recipe, schedule_of(recipe), make_batch))]


@pytest.mark.parametrize("case", CASES)
def test_ten_steps_give_the_loss_curve_of_sd_scripts(case: str) -> None:
    checkout = os.environ.get("SD_SCRIPTS_DIR")
    theirs = their_losses(case, Path(checkout)) if checkout else RECORDED[case]
    ours = our_losses(case)
    assert len(ours) == STEPS and farthest(ours, theirs) <= 1e-5


def test_every_curve_is_of_its_own() -> None:
    curves = [tuple(round(loss, 5) for loss in RECORDED[case]) for case in CASES]
    assert len(set(curves)) == len(CASES)
