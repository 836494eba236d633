"""How the fake A1111 is started, with a checkpoint per family, and removed again."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

_ROOT = Path(__file__).parent / "a1111"
_PACKAGES = ("modules", "ldm", "sgm", "k_diffusion", "open_clip", "networks", "network", "lora_patches")


@contextmanager
def running_a1111(folder: Path) -> Iterator[None]:
    """The fake alone, without anything of ours in it."""
    for part in ("Lora", "Stable-diffusion"):
        (folder / part).mkdir(parents=True)
    sys.path.insert(0, str(_ROOT))
    try:
        import lora_patches
        import networks
        from modules import extra_networks, paths_internal, script_callbacks, sd_models, shared

        paths_internal.data_path = str(folder)
        shared.cmd_opts.lora_dir = str(folder / "Lora")
        shared.cmd_opts.embeddings_dir = str(folder / "embeddings")
        shared.cmd_opts.ckpt_dir = str(folder / "Stable-diffusion")
        shared.opts.outdir_txt2img_grids = str(folder / "txt2img-grids")
        for name, (config, seed) in _CHECKPOINTS.items():
            (folder / "Stable-diffusion" / name).write_bytes(_checkpoint(config, seed))
        # A file does not say what its UNet predicts.
        (folder / "Stable-diffusion" / "sd2-v.yaml").write_text("v2-inference-v")
        sd_models.list_models()
        networks.originals = lora_patches.LoraPatches()
        networks.extra_network_lora = networks.ExtraNetworkLora()
        extra_networks.register_extra_network(networks.extra_network_lora)
        script_callbacks.on_model_loaded(networks.assign_network_names_to_compvis_modules)
        networks.list_available_networks()
        try:
            yield
        finally:
            networks.originals.undo()
    finally:
        sys.path.remove(str(_ROOT))
        for name in list(sys.modules):
            if name.partition(".")[0] in _PACKAGES:
                del sys.modules[name]


_CHECKPOINTS = {
    "sd1.safetensors": ("v1-inference", 0),
    "sd1-other.safetensors": ("v1-inference", 1),
    "sd1-inpainting.safetensors": ("v1-inpainting-inference", 0),
    "sd2-v.safetensors": ("v2-inference-v", 0),
    "sd3.safetensors": ("sd3-inference", 0),
    "sdxl.safetensors": ("sd_xl_base", 0),
}


@functools.cache
def _checkpoint(config: str, seed: int) -> bytes:
    """A checkpoint file with random weights of half precision, as most files have them."""
    from modules import sd_models_config

    with torch.device("meta"):
        state = sd_models_config.CONFIGS[config]().state_dict()
    generator = torch.Generator().manual_seed(seed)
    return save({name: _draw(name, value.shape, generator).half() for name, value in state.items()})


def _draw(name: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
    if "norm" in name or len(shape) < 2:
        return torch.ones(shape) if name.endswith("weight") else torch.zeros(shape)
    scale = 1.0 if "embedding" in name else shape[1:].numel() ** -0.5
    return torch.randn(shape, generator=generator) * scale
