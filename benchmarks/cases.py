"""What is compared: adapters as the two recipes of the project have them, and who computes them."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from lib_trainer.config.recipe import AdapterConfig

# The recipes of presets/: a face with LoHa, a style with LoKr; and LoHa without the Tucker form, as kohya_ss runs it.
ADAPTERS: dict[str, AdapterConfig] = {
    "loha": AdapterConfig(algo="loha", network_dim=32, network_alpha=16, conv_dim=8, conv_alpha=4),
    "loha-tucker": AdapterConfig(
        algo="loha", network_dim=32, network_alpha=16, conv_dim=8, conv_alpha=4, use_tucker=True
    ),
    "lokr": AdapterConfig(algo="lokr", network_dim=64, network_alpha=64, conv_dim=64, conv_alpha=64, factor=8),
}


@dataclass(frozen=True)
class Compute:
    """Device and dtype of both sides. Trained parameters are float32 in any case.

    Attributes:
        device: `cpu` or `cuda`.
        dtype: of the frozen weights and the activations, by its name in torch.
    """

    device: str = "cpu"
    dtype: str = "float32"

    @property
    def torch_dtype(self) -> torch.dtype:
        return getattr(torch, self.dtype)


@dataclass(frozen=True)
class Implementation:
    """Someone who computes adapted layers.

    Attributes:
        name: shown in tables, and names the folder of its packages.
        maker: which function of `makers` builds its layers.
        requirement: what it needs besides the packages that ours has; "" for nothing.
        autocast: trainers run it under autocast; ours casts what it must by itself.
    """

    name: str
    maker: str
    requirement: str = ""
    autocast: bool = False

    def forward_in(self, compute: Compute) -> AbstractContextManager[None]:
        """Entered for forward, as trainers do."""
        casts = self.autocast and compute.torch_dtype != torch.float32
        return torch.autocast(compute.device, compute.torch_dtype, enabled=casts)


OURS = Implementation("ours", "ours")
FROZEN = Implementation("frozen", "frozen")
BASELINES: tuple[Implementation, ...] = (
    Implementation("lycoris-3.2.0.post2", "lycoris", "lycoris-lora==3.2.0.post2", autocast=True),
    Implementation("lycoris-3.4.0", "lycoris", "lycoris-lora==3.4.0", autocast=True),
    Implementation("lycoris-4.1.3", "lycoris", "lycoris-lora==4.1.3", autocast=True),
    Implementation("peft", "peft", "peft==0.17.1", autocast=True),
)
IMPLEMENTATIONS = {item.name: item for item in (OURS, FROZEN, *BASELINES)}
