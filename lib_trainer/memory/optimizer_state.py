"""What an optimizer keeps for each parameter."""

from __future__ import annotations

import math

from lib_trainer.models.flat_step import BLOCK_ELEMENTS, BUCKET_ELEMENTS
from lib_trainer.models.optimizers import SOURCES, canonical_name, measured_state_bytes

_FLOAT_BYTES = 4
# bitsandbytes keeps the state of smaller tensors in float32, and one scale for each block.
_SMALLEST_8BIT = 4096


def optimizer_bytes(optimizer: str, shape: tuple[int, ...]) -> int:
    """Bytes of the optimizer's state for one parameter of that shape."""
    elements = math.prod(shape)
    if optimizer == "AdamW8bit":
        blocks = math.ceil(elements / BLOCK_ELEMENTS)
        filled = blocks * BLOCK_ELEMENTS
        state = 2 * filled + 2 * _FLOAT_BYTES * blocks if elements >= _SMALLEST_8BIT else 2 * _FLOAT_BYTES * filled
        return state + _FLOAT_BYTES * (filled - elements)
    if optimizer == "Prodigy":
        return 4 * _FLOAT_BYTES * elements
    if optimizer == "Adafactor" and len(shape) > 1:
        # The second moment is factored: row sums and column sums of each matrix (Shazeer & Stern, 2018).
        return _FLOAT_BYTES * (elements // shape[-1] + elements // shape[-2])
    if optimizer == "Adafactor":
        return _FLOAT_BYTES * elements
    if optimizer == "AdamW":
        return 2 * _FLOAT_BYTES * elements
    return measured_state_bytes(optimizer, shape)


def gathered_bytes(optimizer: str, elements: int) -> int:
    """Bytes of the gradients that are gathered for one launch of its step over so many elements."""
    source = SOURCES.get(canonical_name(optimizer))
    return _FLOAT_BYTES * min(elements, BUCKET_ELEMENTS) if source and source.flat else 0
