"""What is compared: adapters as the two recipes of the project have them, and who computes them."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import torch

from lib_trainer.config.recipe import AdapterConfig
from lib_trainer.models.device import compute_dtype
from lib_trainer.models.families import FAMILIES, SD1, Family, UNetShape

# The recipes of presets/: a face with LoHa, a style with LoKr; and LoHa without the Tucker form, as kohya_ss runs it.
ADAPTERS: dict[str, AdapterConfig] = {
    "loha": AdapterConfig(algo="loha", network_dim=32, network_alpha=16, conv_dim=8, conv_alpha=4),
    "loha-tucker": AdapterConfig(
        algo="loha", network_dim=32, network_alpha=16, conv_dim=8, conv_alpha=4, use_tucker=True
    ),
    "lokr": AdapterConfig(algo="lokr", network_dim=64, network_alpha=64, conv_dim=64, conv_alpha=64, factor=8),
}

# As wide as SD 1.5's first level, with fewer blocks: for a look on a small CPU.
SMALL = "sd1-small"
_SMALL = replace(SD1, label="SD 1.5 cut to one level", shape=UNetShape((320,), 1, (1,), 1, 768, (8,)))


def family_of(name: str) -> Family:
    """A family of `FAMILIES`, or SMALL."""
    return _SMALL if name == SMALL else FAMILIES[name]


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

    @classmethod
    def of_this_machine(cls) -> Compute:
        """Half precision, as everybody trains; float32 where half precision is no faster."""
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return cls(device.type, str(compute_dtype("bf16", device)).removeprefix("torch."))


@dataclass(frozen=True)
class Implementation:
    """Someone who computes adapted layers.

    Attributes:
        name: shown in tables, and names the folder of its packages.
        maker: which function of `makers` builds its layers.
        requirement: what it needs besides the packages that ours has; "" for nothing.
        autocast: trainers run it under autocast; ours casts what it must by itself.
        checkout: the environment variable that names its checkout; "" for packages.
    """

    name: str
    maker: str
    requirement: str = ""
    autocast: bool = False
    checkout: str = ""

    @property
    def is_here(self) -> bool:
        """Whether it can be measured: a checkout has to be named."""
        return not self.checkout or bool(os.environ.get(self.checkout))

    def forward_in(self, compute: Compute) -> AbstractContextManager[None]:
        """Entered for forward, as trainers do."""
        casts = self.autocast and compute.torch_dtype != torch.float32
        return torch.autocast(compute.device, compute.torch_dtype, enabled=casts)


OURS = Implementation("ours", "ours")
FROZEN = Implementation("frozen", "frozen")
# Of the comparison of speeds.
PARTS = ("layers", "steps", "checkpointed-steps")
BASELINES: tuple[Implementation, ...] = (
    Implementation("lycoris-3.2.0.post2", "lycoris", "lycoris-lora==3.2.0.post2", autocast=True),
    Implementation("lycoris-3.4.0", "lycoris", "lycoris-lora==3.4.0", autocast=True),
    Implementation("lycoris-4.1.3", "lycoris", "lycoris-lora==4.1.3", autocast=True),
    Implementation("peft-0.17.1", "peft", "peft==0.17.1", autocast=True),
    Implementation("peft-0.21.2", "peft", "peft==0.21.2", autocast=True),
    Implementation("sd-scripts", "sd-scripts", autocast=True, checkout="SD_SCRIPTS_DIR"),
)
IMPLEMENTATIONS = {item.name: item for item in (OURS, FROZEN, *BASELINES)}
