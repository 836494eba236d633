"""Where a model's weights lie while it is trained on, and how much room there is."""

from __future__ import annotations

from dataclasses import dataclass

from lib_trainer.models.families import Family, UNetShape


@dataclass(frozen=True)
class Placement:
    """Where the UNet's weights lie while it is trained on, and which of its work is done twice.

    Attributes:
        recomputed: the blocks whose activations are recomputed in backward, as places in the order of forward among
            all residual and transformer blocks; None for all of them.
        int8: the layers' weights are stored in 8 bits.
        streamed: share of the layers' weights that stays on the CPU and is fetched for each use.
    """

    recomputed: frozenset[int] | None = frozenset()
    int8: bool = False
    streamed: float = 0.0

    @property
    def offloads(self) -> bool:
        return self.int8 or self.streamed > 0

    def recomputes(self, place: int) -> bool:
        return self.recomputed is None or place in self.recomputed


RESIDENT = Placement()
"""All of it on the device, nothing recomputed."""

RECOMPUTED = Placement(recomputed=None)
"""All of it on the device, every block recomputed."""


@dataclass(frozen=True)
class MemoryProfile:
    """What there is to train, and room for it. Known before a model is borrowed.

    Attributes:
        weight_bytes: of one number of the UNet as the host stores it; 0.5 for 4-bit forms.
        is_dense: the weights are plain numbers, of which other forms can be made.
        available_bytes: of the device, everything of the host's moved off it; None for a CPU.
        total_bytes: of the device.
    """

    family: Family
    shape: UNetShape
    weight_bytes: float
    is_dense: bool = True
    available_bytes: int | None = None
    total_bytes: int = 0
