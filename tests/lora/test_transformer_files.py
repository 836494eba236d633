"""Files of transformers are known by what they say, and by the names of their layers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lib_trainer.cli.inspect import inspect_file
from lib_trainer.lora.describe import describe_lora, family_by_layers, family_by_metadata
from lib_trainer.models.families import FLUX, KLEIN9B, LUMINA2, TRANSFORMER_FAMILIES, ZIMAGE, Family

FLUX_LAYER, JOINT_LAYER = "lora_unet_single_blocks_0_linear1", "lora_unet_layers_0_attention_qkv"


@pytest.mark.parametrize("family", TRANSFORMER_FAMILIES, ids=lambda family: family.key)
def test_a_file_says_its_family(family: Family) -> None:
    assert family_by_metadata({"modelspec.architecture": family.architecture}) == family
    assert family_by_metadata({"ss_base_model_version": family.base_model_version}) == family


def test_layers_tell_the_layout() -> None:
    assert family_by_layers([FLUX_LAYER, "lora_unet_double_blocks_0_img_attn_qkv"]) == FLUX
    assert family_by_layers([JOINT_LAYER]) == ZIMAGE
    assert family_by_layers([FLUX_LAYER, JOINT_LAYER]) is None
    assert family_by_layers(["lora_unet_input_blocks_1_0_in_layers_2"]) is None


def write(path: Path, layer: str, **metadata: str) -> Path:
    tensors = {"lora_up.weight": torch.zeros(8, 2), "lora_down.weight": torch.zeros(2, 8), "alpha": torch.tensor(2.0)}
    save_file({f"{layer}.{name}": tensor for name, tensor in tensors.items()}, path, metadata)
    return path


def test_cards_and_headers_are_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.safetensors", FLUX_LAYER)
    assert describe_lora(path, "a", {}).family == FLUX
    # Klein's two sizes share a version on cards: the file decides.
    (tmp_path / "a.json").write_text(json.dumps({"sd version": "klein"}))
    assert describe_lora(path, "a", {"ss_base_model_version": "flux_2_klein_9b"}).family == KLEIN9B
    (tmp_path / "a.json").write_text(json.dumps({"sd version": "lumina"}))
    assert describe_lora(path, "a", {}).family == LUMINA2


def test_inspect_knows_the_layers(tmp_path: Path) -> None:
    found = inspect_file(write(tmp_path / "z.safetensors", JOINT_LAYER)).values
    assert (found["family"], found["unmatched_keys"]) == ("Z-Image", [])
