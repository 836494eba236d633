"""Inputs that people brought, or would bring, and that were once lost, misread or answered with a traceback."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import save_file

LAYER = "lora_unet_mid_block_attentions_0_proj_in"


def picture(path: Path, width: int = 64, height: int = 64, caption: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.effect_noise((width, height), 60).convert("RGB").save(path)
    if caption is not None:
        path.with_suffix(".txt").write_text(caption, encoding="utf-8")
    return path


def half_a_jpeg(path: Path) -> Path:
    data = BytesIO()
    Image.effect_noise((256, 256), 60).save(data, "JPEG")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.getvalue()[: len(data.getvalue()) // 2])
    return path


def json_file(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


GOOD_LORA = {"lora_up.weight": torch.zeros(8, 4), "lora_down.weight": torch.zeros(4, 8)}
MALFORMED_LORAS: dict[str, dict[str, torch.Tensor]] = {
    "alpha_empty": {**GOOD_LORA, "alpha": torch.zeros(0)},
    "alpha_vec": {**GOOD_LORA, "alpha": torch.zeros(3)},
    "loha_bad": {
        "hada_w1_a": torch.zeros(8, 4), "hada_w1_b": torch.zeros(3, 8),
        "hada_w2_a": torch.zeros(8, 4), "hada_w2_b": torch.zeros(4, 8),
    },
    "loha_t_partial": {
        "hada_w1_a": torch.zeros(4, 8), "hada_w1_b": torch.zeros(4, 8), "hada_w2_a": torch.zeros(4, 8),
        "hada_w2_b": torch.zeros(4, 8), "hada_t1": torch.zeros(4, 4, 3, 3),
    },
    "lora0d": {"lora_up.weight": torch.zeros(()), "lora_down.weight": torch.zeros(())},
    "lora1d": {"lora_up.weight": torch.zeros(8), "lora_down.weight": torch.zeros(8)},
    "mismatch": {"lora_up.weight": torch.zeros(8, 4), "lora_down.weight": torch.zeros(5, 8)},
}  # fmt: skip


def lora(path: Path, tensors: dict[str, torch.Tensor], layer: str = LAYER) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({f"{layer}.{name}": tensor for name, tensor in tensors.items()}, path)
    return path
