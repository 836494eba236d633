"""Layers and ranks of a LoRA file, for the plan of a run that continues it with `dim_from_weights`."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from torch import nn

from lib_trainer.adapter.io import read_adapter
from lib_trainer.adapter.keys import NORM
from lib_trainer.adapter.start import factors_for
from lib_trainer.memory.layer_cost import ModuleShape
from lib_trainer.memory.text_blocks import text_encoder_blocks
from lib_trainer.memory.unet_blocks import unet_blocks
from lib_trainer.models.base import Layer
from lib_trainer.models.families import Family, UNetShape

_ANY_SIZE_PX = 512


# A page asks again with every change of a field; the time of change makes a new entry when a file is replaced.
@lru_cache(maxsize=8)
def shapes_in_file(
    path: Path, _changed_ns: int, family: Family, shape: UNetShape
) -> tuple[tuple[str, ModuleShape], ...]:
    """(layer, its adapter) of the file, for a UNet of that shape and the family's text encoders.

    Raises:
        UserError: the file cannot be read, or fits no layer.
    """
    blocks = (*unet_blocks(shape, _ANY_SIZE_PX, _ANY_SIZE_PX), *text_encoder_blocks(family))
    nowhere = nn.Module()
    layers = [
        Layer(site.name, nowhere, "conv2d" if site.operation.is_conv else "linear", site.operation.shape)
        for block in blocks
        for site in block.sites
    ]
    layers += [Layer(name, nowhere, NORM, (channels,)) for block in blocks for name, channels in block.norms]
    found = factors_for(read_adapter(path), layers, path.stem)
    return tuple((name, ModuleShape.of(module)) for name, module in found.items())
