"""What an optimizer keeps for each parameter."""

from __future__ import annotations

import math

from lib_trainer.models.optimizers import measured_state_bytes

_FLOAT_BYTES = 4
# bitsandbytes keeps the state of smaller tensors in float32, and one scale for each block of so many elements.
_SMALLEST_8BIT, _SCALE_BLOCK = 4096, 256


def optimizer_bytes(optimizer: str, shape: tuple[int, ...]) -> int:
    """Bytes of the optimizer's state for one parameter of that shape."""
    elements = math.prod(shape)
    if optimizer == "AdamW8bit" and elements >= _SMALLEST_8BIT:
        return 2 * elements + 2 * _FLOAT_BYTES * math.ceil(elements / _SCALE_BLOCK)
    if optimizer == "Prodigy":
        return 4 * _FLOAT_BYTES * elements
    if optimizer == "Adafactor" and len(shape) > 1:
        # The second moment is factored: row sums and column sums of each matrix (Shazeer & Stern, 2018).
        return _FLOAT_BYTES * (elements // shape[-1] + elements // shape[-2])
    if optimizer == "Adafactor":
        return _FLOAT_BYTES * elements
    if optimizer in ("AdamW", "AdamW8bit"):
        return 2 * _FLOAT_BYTES * elements
    return measured_state_bytes(optimizer, shape)
