"""What LoRA files bring to a plan: layers and ranks of one that is continued, bytes of those that stay as they are."""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path

from torch import nn

from lib_trainer.adapter.embedding import is_bundled
from lib_trainer.adapter.io import read_adapter
from lib_trainer.adapter.keys import ALPHA, NORM
from lib_trainer.adapter.start import factors_for
from lib_trainer.errors import UserError
from lib_trainer.memory.layer_cost import ModuleShape
from lib_trainer.memory.text_blocks import text_encoder_blocks
from lib_trainer.memory.unet_blocks import unet_blocks
from lib_trainer.models.base import Layer
from lib_trainer.models.families import Family, UNetShape
from lib_trainer.utils.safetensors_header import HeaderError, read_header

_ANY_SIZE_PX = 512
_FLOAT_BYTES = 4


def frozen_file_bytes(path: Path) -> int:
    """Bytes that a frozen LoRA takes: all its factors, in float32. Raises UserError for a file that cannot be read."""
    try:
        shapes = read_header(path).shapes
    except (OSError, HeaderError) as error:
        raise UserError(f"{path.name} cannot be read: {error}.", "Choose a .safetensors file.") from error
    factors = [shape for key, shape in shapes.items() if not (key.endswith(f".{ALPHA}") or is_bundled(key))]
    return _FLOAT_BYTES * sum(map(math.prod, factors))


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
