"""Small standalone models, their inputs and adapters."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
import torch

from lib_trainer.adapter.attach import new_adapter
from lib_trainer.adapter.io import adapter_tensors, save_adapter
from lib_trainer.config.recipe import AdapterConfig
from lib_trainer.host.standalone.model import StandaloneModel
from lib_trainer.models.base import CheckpointInfo, SizeCond
from lib_trainer.models.families import SD1, SD2, SDXL

CPU = torch.device("cpu")


FAMILIES = pytest.mark.parametrize("family", [SD1, SD2, SDXL], ids=lambda family: family.key)


def model_of(pipeline, undo: ExitStack | None = None) -> StandaloneModel:
    return StandaloneModel(pipeline, CheckpointInfo("tiny", "0"), CPU, undo or ExitStack())


def save_random_adapter(model: StandaloneModel, path, seed: int, *, text: bool = False, layers=None):
    """A LoHa on every layer whose ΔW is about as large as the weights."""
    layers = layers or [*model.adaptable_layers(), *(model.text_layers() if text else [])]
    adapter = new_adapter(layers, AdapterConfig(network_dim=4, conv_dim=2, use_tucker=True), seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_adapter(path, adapter_tensors(adapter, "fp32"), {})
    return adapter


def inputs(model: StandaloneModel) -> tuple:
    generator = torch.Generator().manual_seed(1)
    sizes = SizeCond(torch.tensor([[64.0, 64, 0, 0, 64, 64]] * 2))
    x_t = torch.randn((2, 4, 8, 8), generator=generator)
    return x_t, torch.tensor([10, 700]), model.encode_text(["a red circle", "a cat"], 1), sizes
