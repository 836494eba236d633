"""What the tests of the fake A1111 do with it: select, draw, write LoRA files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

FIRST_RES_BLOCK = "lora_unet_down_blocks_0_resnets_0_conv1"


HALF_A_LAYER = "lora_te2_text_model_encoder_layers_0_self_attn_q_proj"


def select(checkpoint: str, fp8: str = "Disable") -> Any:
    """The model of a checkpoint, loaded."""
    from modules import sd_models, shared

    shared.opts.data.update(sd_model_checkpoint=checkpoint, fp8_storage=fp8, emphasis="No norm")
    assert shared.sd_model is not None
    return sd_models.reload_model_weights()


def forget() -> None:
    """As when the WebUI has just started: nothing is loaded."""
    from modules import devices, sd_models

    sd_models.model_data.__init__()
    devices.fp8 = False


def draw(prompt: str = "a photo") -> bytes:
    return job(prompt)[1].images[0].tobytes()


def job(prompt: str) -> tuple[Any, Any]:
    from modules import processing

    made = processing.StableDiffusionProcessingTxt2Img(prompt=prompt, seed=7, steps=1, width=64, height=64)
    return made, processing.process_images(made)


def write(folder: Path, name: str, seed: int, *layers: str) -> Path:
    """A LoRA file. Its time differs from an older one's of the same name."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {FIRST_RES_BLOCK: ((64, 64, 3, 3), 4)} if not layers else dict.fromkeys(layers, ((24, 24), 4))
    tensors = {}
    for layer, ((out, inside, *kernel), rank) in shapes.items():
        tensors[f"{layer}.lora_up.weight"] = torch.randn((out, rank, *[1] * len(kernel)), generator=generator)
        tensors[f"{layer}.lora_down.weight"] = torch.randn((rank, inside, *kernel), generator=generator)
    path = folder / "Lora" / f"{name}.safetensors"
    save_file(tensors, path)
    os.utime(path, (seed, seed))
    return path


def first_weight() -> torch.nn.Parameter:
    from modules import shared

    return shared.sd_model.model.diffusion_model.input_blocks[1][0].in_layers[2].weight
