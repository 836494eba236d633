"""The packages that training needs beside torch: for the installer, and for the page that names the missing ones."""

from __future__ import annotations

from dataclasses import dataclass

_NO_TRAINING = "Training does not work. Grids of finished adapters do."


@dataclass(frozen=True)
class Package:
    """One package.

    Attributes:
        name, module: what pip installs, and what is imported.
        without_it: what does not work, and what still does.
        is_needed: training does not work without it.
        for_gpu: of no use without a GPU.
        comes_along: every WebUI pins it, so the installer leaves it alone.
    """

    name: str
    module: str
    without_it: str
    is_needed: bool = True
    for_gpu: bool = False
    comes_along: bool = False


PACKAGES = (
    # LyCORIS imports these three.
    Package("einops", "einops", _NO_TRAINING),
    Package("toml", "toml", _NO_TRAINING),
    Package("tqdm", "tqdm", _NO_TRAINING),
    Package("lycoris-lora", "lycoris", _NO_TRAINING),
    Package("safetensors", "safetensors", "Training does not work: adapters cannot be written.", comes_along=True),
    Package(
        "bitsandbytes", "bitsandbytes", "AdamW replaces AdamW8bit and takes more memory.", is_needed=False, for_gpu=True
    ),
    Package("prodigyopt", "prodigyopt", "The optimizer Prodigy does not work. All others do.", is_needed=False),
    Package(
        "pytorch-optimizer",
        "pytorch_optimizer",
        "The optimizers Lion, CAME, Adan, StableAdamW, Muon and AdamWScheduleFree do not work. All others do.",
        is_needed=False,
    ),
)
