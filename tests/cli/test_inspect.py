"""`inspect` on files of each kind."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from lib_trainer.adapter.metadata import RECIPE_KEY
from lib_trainer.cli.inspect import KNOWN_NAME, inspect_file
from lib_trainer.errors import UserError
from lib_trainer.host.standalone.model import StandaloneModel, unet_layers
from lib_trainer.models.families import SD1, SDXL
from lib_trainer.models.layer_names import diffusers_names, kohya_name, ldm_names
from tests.host.standalone_models import model_of
from tests.host.tiny_pipelines import tiny_pipeline
from tests.models.test_layer_names import SD15, weighted_names
from tests.models.test_layer_names import SDXL as SDXL_CONFIG


def lora(name: str, rank: int = 4, width: int = 8, context: int = 8) -> dict[str, torch.Tensor]:
    return {
        f"{name}.lora_up.weight": torch.zeros(width, rank),
        f"{name}.lora_down.weight": torch.zeros(rank, context),
        f"{name}.alpha": torch.tensor(2.0),
    }


def inspected(tmp_path, tensors, metadata=None):
    save_file(tensors, tmp_path / "a.safetensors", metadata)
    return inspect_file(tmp_path / "a.safetensors").values


def test_every_name_of_real_unets_is_known():
    for config in (SD15, SDXL_CONFIG):
        names = weighted_names(config)
        for name in [*names, *ldm_names(names).values()]:
            assert KNOWN_NAME.fullmatch(kohya_name(name)), name
    assert len(diffusers_names(ldm_names(weighted_names(SD15)).values())) == 282


@pytest.mark.parametrize("family", [SD1, SDXL], ids=lambda family: family.key)
def test_every_name_that_is_written_is_known(family, tmp_path):
    model: StandaloneModel = model_of(tiny_pipeline(family, tmp_path))
    for layer in [*unet_layers(model.unet, family), *model.text_layers()]:
        assert KNOWN_NAME.fullmatch(layer.name), layer.name


@pytest.mark.parametrize(
    "name",
    [
        "lora_unet_triple_blocks_0_img_attn_qkv",
        "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_v_proj",
        "lora_te3_text_model_encoder_layers_0_mlp_fc1",
        "unet_down_blocks_0_resnets_0_conv1",
        "lora_unet_mid_block_resnets_0_norm3",
    ],
)
def test_names_that_no_webui_looks_for_are_listed(name, tmp_path):
    known = "lora_unet_mid_block_attentions_0_proj_in"
    values = inspected(tmp_path, {**lora(name), **lora(known), "stray.bias": torch.zeros(1)})
    assert values["unmatched_keys"] == ["stray.bias", name]
    assert f"2 keys that no WebUI matches: stray.bias, {name}" in inspect_file(tmp_path / "a.safetensors").lines


@pytest.mark.parametrize(
    ("metadata", "context", "family"),
    [
        ({"modelspec.architecture": "stable-diffusion-xl-v1-base/lora"}, 8, "SDXL"),
        ({"ss_base_model_version": "sd_v1"}, 8, "SD 1.x"),
        ({"ss_base_model_version": "sdxl_base_v0-9"}, 8, "SDXL"),
        ({"ss_base_model_version": "sd_v2_v"}, 8, "SD 2.x"),
        ({}, 768, "SD 1.x"),
        ({}, 1024, "SD 2.x"),
        ({}, 2048, "SDXL"),
        ({}, 8, "unknown"),
    ],
)
def test_the_family_is_told_by_metadata_or_by_shape(metadata, context, family, tmp_path):
    name = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"
    assert inspected(tmp_path, lora(name, context=context), metadata)["family"] == family


def test_ranks_sizes_and_counts_are_those_of_the_file(tmp_path):
    values = inspected(
        tmp_path,
        {
            **lora("lora_unet_mid_block_attentions_0_proj_in", rank=4),
            **lora("lora_unet_mid_block_attentions_0_proj_out", rank=4),
            **lora("lora_te_text_model_encoder_layers_0_mlp_fc1", rank=2),
        },
        {"ss_comment": "mine"},
    )
    assert values["adapter"] == ["LoCon"]
    assert values["ranks"] == {"rank 4, alpha 2": 2, "rank 2, alpha 2": 1}
    assert values["modules"] == {"unet": 2, "text_encoder": 1}
    assert values["parameters"] == 2 * 2 * 4 * 8 + 2 * 2 * 8
    assert values["metadata"] == {"ss_comment": "mine"}
    assert values["bytes"] == (tmp_path / "a.safetensors").stat().st_size


def test_a_file_that_is_no_adapter_is_said(tmp_path):
    with pytest.raises(UserError, match="holds no"):
        inspected(tmp_path, {"model.diffusion_model.x": torch.zeros(2)})


def factors_of(down: str, up: str, alpha: str = "") -> dict[str, torch.Tensor]:
    made = {down: torch.zeros(4, 8), up: torch.zeros(8, 4)}
    return {**made, alpha: torch.tensor(2.0)} if alpha else made


@pytest.mark.parametrize(
    ("layer", "ends", "naming"),
    [
        ("unet.mid_block.attentions.0.proj_in", ("lora_A.weight", "lora_B.weight"), "diffusers"),
        ("text_encoder.text_model.encoder.layers.0.mlp.fc1",
         ("lora_linear_layer.down.weight", "lora_linear_layer.up.weight"), "diffusers"),
        ("base_model.model.mid_block.attentions.0.proj_in", ("lora_A.weight", "lora_B.weight"), "PEFT"),
        ("diffusion_model.double_blocks.0.img_attn.qkv", ("lora_down.weight", "lora_up.weight"), "ComfyUI"),
        ("lycoris_mid_block_attentions_0_proj_in", ("lora_down.weight", "lora_up.weight"), "LyCORIS"),
    ],
)  # fmt: skip
def test_names_of_other_programs_are_read(tmp_path, layer, ends, naming):
    values = inspected(tmp_path, factors_of(*(f"{layer}.{end}" for end in ends)))
    assert values["unmatched_keys"] == [] and values["naming"] == naming
    assert sum(values["modules"].values()) == 1
    assert f"keys named as {naming} names them" in inspect_file(tmp_path / "a.safetensors").lines


@pytest.mark.parametrize(
    "key", ["lora_unet_mid_block_attentions_0_proj_in.dora_scale",
            "unet.mid_block.attentions.0.proj_in.lora_magnitude_vector"],
)  # fmt: skip
def test_a_dora_is_named(tmp_path, key):
    layer = key.rpartition(".")[0]
    ends = ("lora_A.weight", "lora_B.weight") if layer.startswith("unet.") else ("lora_down.weight", "lora_up.weight")
    values = inspected(tmp_path, {**factors_of(*(f"{layer}.{end}" for end in ends)), key: torch.ones(8, 1)})
    assert values["dora"] == 1 and values["unmatched_keys"] == []
    lines = inspect_file(tmp_path / "a.safetensors").lines
    assert any("LoCon (DoRA, norm per output) for" in line for line in lines)
    assert any("otherwise than it was trained" in line for line in lines)


@pytest.mark.parametrize(
    ("metadata", "program"),
    [
        ({RECIPE_KEY: "{}"}, "Train LoRA"),
        ({"ss_network_module": "networks.lora"}, "kohya's sd-scripts"),
        ({"ss_network_module": "lycoris.kohya"}, "LyCORIS in kohya's sd-scripts"),
        ({"ot_revision": "abc"}, "OneTrainer"),
        ({"software": '{"name": "ai-toolkit", "repo": "x"}'}, "ai-toolkit"),
        ({"software": "[1"}, ""),
        ({"software": "[" * 100_000}, ""),
        ({}, ""),
    ],
    ids=["ours", "kohya", "lycoris", "onetrainer", "ai-toolkit", "cut", "nested", "nothing"],
)
def test_the_program_that_wrote_the_file_is_named(tmp_path, metadata, program):
    values = inspected(tmp_path, lora("lora_unet_mid_block_attentions_0_proj_in"), metadata)
    assert values["program"] == program
    lines = inspect_file(tmp_path / "a.safetensors").lines
    assert (f"written by {program}" in lines) == bool(program)


def test_a_file_without_alpha_means_the_rank(tmp_path):
    values = inspected(tmp_path, factors_of(*(f"lora_unet_conv_in.lora_{way}.weight" for way in ("down", "up"))))
    assert values["ranks"] == {"rank 4, alpha 4": 1}


def test_an_embedding_is_named(tmp_path):
    layer = "lora_unet_mid_block_attentions_0_proj_in"
    save_file({**lora(layer), "bundle_emb.jeff.string_to_param.*": torch.zeros(2, 8)}, tmp_path / "a.safetensors")
    answer = inspect_file(tmp_path / "a.safetensors")
    assert answer.values["embeddings"] == {"jeff": 2} and answer.values["unmatched_keys"] == []
    assert any("an embedding of 2 vectors for the word jeff" in line for line in answer.lines)
