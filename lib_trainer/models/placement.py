"""Where a model's weights lie during training, and how much memory the device has."""

from __future__ import annotations

from dataclasses import dataclass

from lib_trainer.models.families import Family, TransformerShape, UNetShape


@dataclass(frozen=True)
class Placement:
    """Where the UNet's weights lie during training, and which blocks are recomputed in backward.

    Attributes:
        recomputed: the blocks whose activations are recomputed in backward (gradient checkpointing), as positions in
            forward order among all residual and transformer blocks; None for all of them.
        int8: the layers' weights are stored in 8 bits.
        streamed: share of the layers' weights that stays on the CPU and is fetched for each use.
    """

    recomputed: frozenset[int] | None = frozenset()
    int8: bool = False
    streamed: float = 0.0

    @property
    def offloads(self) -> bool:
        return self.int8 or self.streamed > 0

    def recomputes(self, position: int) -> bool:
        return self.recomputed is None or position in self.recomputed


RESIDENT = Placement()
"""All of it on the device, nothing recomputed."""

RECOMPUTED = Placement(recomputed=None)
"""All of it on the device, every block recomputed."""


@dataclass(frozen=True)
class MemoryProfile:
    """What there is to train, and the device's memory; known before a model is opened.

    Attributes:
        weight_bytes: of one parameter of the UNet as the host stores it; about 0.5 for 4-bit formats.
        is_dense: the weights are plain floats, which can be converted to other formats.
        available_bytes: of the device, with all of the host's models moved off it; None for a CPU.
        total_bytes: of the device.
    """

    family: Family
    shape: UNetShape | TransformerShape
    weight_bytes: float
    is_dense: bool = True
    available_bytes: int | None = None
    total_bytes: int = 0
