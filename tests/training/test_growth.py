"""Training holds as much at its end as at its beginning."""

from __future__ import annotations

import gc
from contextlib import ExitStack
from typing import Any

import pytest
import torch

from lib_trainer.adapter.attach import attached, new_adapter
from lib_trainer.config.recipe import AdapterConfig
from lib_trainer.dataset.collate import Batch
from lib_trainer.events import Step
from lib_trainer.host.standalone.model import StandaloneModel
from lib_trainer.memory.storage_peak import StoragePeak
from lib_trainer.models.base import CheckpointInfo, SizeCond, TextCond
from lib_trainer.models.families import SDXL
from lib_trainer.models.placement import RESIDENT, Placement
from lib_trainer.training.loop import Training, fit
from tests.host.tiny_pipelines import tiny_pipeline
from tests.training.small import recipe_of, schedule_of

SETTLED, STEPS = 6, 15


@pytest.mark.parametrize(
    ("placement", "training"),
    [
        (RESIDENT, {}),
        (Placement(frozenset([0, 2]), int8=True, streamed=0.5), {"fused_backward_pass": True}),
    ],
    ids=["plain", "lean"],
)
def test_live_bytes_do_not_grow(placement: Placement, training: dict[str, Any], tmp_path) -> None:
    recipe = recipe_of(max_train_steps=STEPS, optimizer="AdamW", **training)
    alive: dict[int, int] = {}
    peak = StoragePeak()
    with ExitStack() as undo:
        model = StandaloneModel(tiny_pipeline(SDXL, tmp_path), CheckpointInfo("tiny", ""), torch.device("cpu"), undo)
        text = model.encode_text(["a cat"], 1)
        layers = model.adaptable_layers()[:12]
        adapter = new_adapter(layers, AdapterConfig(network_dim=2, conv_dim=2), 0)
        model.prepare_training(placement, text_encoder=False)
        with peak, attached(adapter, layers, model.read_weight):
            for event in fit(Training(model, adapter, recipe, schedule_of(recipe), lambda _: _batch(text))):
                if isinstance(event, Step) and event.number in (SETTLED, STEPS):
                    gc.collect()
                    alive[event.number] = peak.current
    assert 0 < alive[SETTLED] == alive[STEPS]


def _batch(text: TextCond) -> Batch:
    return Batch(torch.zeros(1, 4, 8, 8), SizeCond(torch.full((1, 6), 64.0)), ("a cat",), text)
