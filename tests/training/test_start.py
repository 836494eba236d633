"""Runs that begin with LoRA files: continued, and trained over."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lib_trainer.adapter.attach import Adapter, attached, new_adapter
from lib_trainer.adapter.foreign_keys import kohya_key, names_in_model
from lib_trainer.adapter.frozen import FrozenLoras
from lib_trainer.adapter.io import AdapterFile, adapter_tensors, read_adapter, save_adapter
from lib_trainer.adapter.modules import AdapterModule
from lib_trainer.adapter.start import config_of, continued_adapter, factors_for
from lib_trainer.config.recipe import AdapterConfig, Recipe
from lib_trainer.config.start import StartConfig, named_paths, without_folders
from lib_trainer.errors import UserError
from lib_trainer.models.base import Layer
from lib_trainer.models.layer_names import diffusers_file_names
from lib_trainer.training.loop import Training, fit
from lib_trainer.training.start import open_start
from tests.training.small import SmallModel, make_batch, one_layer_model, recipe_of, schedule_of

# Without moments AdamW has no memory of earlier steps, which no adapter file holds: two runs can equal one.
FORGETFUL = {"optimizer_args": "betas=0.0,0.0", "max_train_steps": 40}


def steps_from(adapter: Adapter, recipe: Recipe, model: SmallModel, taken: int, upto: int) -> None:
    """Steps taken + 1 … upto of the recipe, with the draws and noise that these numbers have."""
    with attached(adapter, model.layers, model.read_weight):
        for event in fit(Training(model, adapter, recipe, schedule_of(recipe), make_batch), taken):
            if getattr(event, "number", 0) == upto:
                break


def saved(adapter: Adapter, path: Path, precision: str = "fp32") -> Path:
    save_adapter(path, adapter_tensors(adapter, precision), {})
    return path


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 0.0), ("fp16", 2e-3)])
def test_twenty_steps_and_twenty_from_the_file_equal_forty(tmp_path: Path, precision: str, tolerance: float) -> None:
    recipe, model = recipe_of(**FORGETFUL), one_layer_model()
    whole, first = (new_adapter(model.layers, recipe.adapter, 0) for _ in range(2))
    steps_from(whole, recipe, model, 0, 40)
    steps_from(first, recipe, model, 0, 20)
    found = factors_for(read_adapter(saved(first, tmp_path / "a.safetensors", precision)), model.layers, "a")
    second, fresh = continued_adapter(found, model.layers, recipe.adapter, 9, dim_from_weights=False)
    before = second.layers["lora_unet_conv"].delta().clone()
    steps_from(second, recipe, model, 20, 40)
    a, b = (adapter.layers["lora_unet_conv"].delta() for adapter in (whole, second))
    assert fresh == 0 and float((b - before).norm()) > 0.1 * float(b.norm())
    assert float((a - b).norm()) <= tolerance * float(a.norm())


@pytest.mark.parametrize("algo", ["loha", "lokr", "locon"])
def test_rank_and_type_come_from_the_file_where_the_recipe_asks_for_it(tmp_path: Path, algo: str) -> None:
    model = one_layer_model()
    config = AdapterConfig(algo=algo, network_dim=2, conv_dim=1, conv_alpha=0.5, factor=2)
    made = new_adapter(model.layers, config, 3)
    for parameter in made.parameters():
        parameter.data.normal_()
    file = read_adapter(saved(made, tmp_path / "a.safetensors"))
    other = AdapterConfig(algo="loha" if algo == "locon" else "locon", conv_dim=7)
    found = factors_for(file, model.layers, "a")
    with pytest.raises(UserError, match="another type or rank"):
        continued_adapter(found, model.layers, other, 0, dim_from_weights=False)
    adapter, fresh = continued_adapter(found, model.layers, other, 0, dim_from_weights=True)
    torch.testing.assert_close(adapter.layers["lora_unet_conv"].delta(), made.layers["lora_unet_conv"].delta())
    took = config_of(found, model.layers, other)
    assert (took.algo, took.conv_dim, took.conv_alpha, fresh) == (algo, 1, 1.0 if algo == "lokr" else 0.5, 0)


def test_a_frozen_lora_adds_its_change_and_the_hosts_weights_stay() -> None:
    model, lora = one_layer_model(), new_adapter(one_layer_model().layers, AdapterConfig(algo="locon", conv_dim=2), 1)
    for parameter in lora.parameters():
        parameter.data.normal_()
    (layer,), before = model.layers, model.layers[0].module.weight.clone()
    frozen = FrozenLoras([({layer.name: lora.layers[layer.name]}, 0.6)])
    weight, _ = frozen.over(model.read_weight)(layer, torch.zeros(1))
    torch.testing.assert_close(weight, before + 0.6 * lora.layers[layer.name].delta(before.shape))
    assert torch.equal(layer.module.weight, before)
    # In half precision rounded once, after the sum.
    half, _ = frozen.over(lambda _, like: (before.half(), None))(layer, torch.zeros(1, dtype=torch.float16))
    assert torch.equal(half, (before.half().float() + 0.6 * lora.layers[layer.name].delta(before.shape)).half())


def test_training_over_a_frozen_lora_equals_training_on_merged_weights() -> None:
    recipe, lora = recipe_of(max_train_steps=5), new_adapter(one_layer_model().layers, AdapterConfig(conv_dim=2), 1)
    for parameter in lora.parameters():
        parameter.data.normal_(std=0.3)
    merged, over = one_layer_model(), one_layer_model()
    module = lora.layers["lora_unet_conv"]
    merged.layers[0].module.weight.data += 0.5 * module.delta((4, 4, 3, 3)).detach()
    before = [parameter.clone() for parameter in lora.parameters()]
    over.read_weight = FrozenLoras([({"lora_unet_conv": module}, 0.5)]).over(over.read_weight)
    adapters = []
    for model in (merged, over):
        adapters.append(new_adapter(model.layers, recipe.adapter, 0))
        steps_from(adapters[-1], recipe, model, 0, 5)
    for a, b in zip(adapters[0].parameters(), adapters[1].parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    assert all(torch.equal(a, b) for a, b in zip(lora.parameters(), before, strict=True))


FOREIGN = {
    "unet.down_blocks.0.attentions.1.proj_in.lora_A.weight": (
        "lora_unet_down_blocks_0_attentions_1_proj_in.lora_down.weight"
    ),
    "base_model.model.mid_block.attentions.0.proj_out.lora_B.weight": (
        "lora_unet_mid_block_attentions_0_proj_out.lora_up.weight"
    ),
    "unet.up_blocks.1.attentions.0.transformer_blocks.0.attn1.processor.to_out_lora.up.weight": (
        "lora_unet_up_blocks_1_attentions_0_transformer_blocks_0_attn1_to_out_0.lora_up.weight"
    ),
    "text_encoder_2.text_model.encoder.layers.3.mlp.fc1.lora_linear_layer.down.weight": (
        "lora_te2_text_model_encoder_layers_3_mlp_fc1.lora_down.weight"
    ),
    "lycoris_down_blocks_0_resnets_0_conv1.lokr_w1": "lora_unet_down_blocks_0_resnets_0_conv1.lokr_w1",
    "lora_unet_mid_block_attentions_0_proj_in.alpha": "lora_unet_mid_block_attentions_0_proj_in.alpha",
    "unet.mid_block.attentions.0.proj_in.alpha": "lora_unet_mid_block_attentions_0_proj_in.alpha",
}


@pytest.mark.parametrize("key", FOREIGN)
def test_keys_of_other_programs_are_read_as_kohyas(key: str) -> None:
    assert kohya_key(key) == FOREIGN[key]


def test_diffusers_names_mean_layers_of_sdxl() -> None:
    sdxl = [
        "lora_unet_input_blocks_3_0_op",
        "lora_unet_input_blocks_4_0_in_layers_2",
        "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_out_0",
        "lora_unet_middle_block_1_proj_in",
        "lora_unet_output_blocks_2_2_conv",
        "lora_te1_text_model_encoder_layers_0_mlp_fc1",
    ]
    assert diffusers_file_names(sdxl) == {
        "lora_unet_down_blocks_0_downsamplers_0_conv": sdxl[0],
        "lora_unet_down_blocks_1_resnets_0_conv1": sdxl[1],
        "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_out_0": sdxl[2],
        "lora_unet_mid_block_attentions_0_proj_in": sdxl[3],
        "lora_unet_up_blocks_0_upsamplers_0_conv": sdxl[4],
    }
    names = ["lora_te_text_model_encoder_layers_0_mlp_fc1", sdxl[1], "lora_unet_mid_block_attentions_0_proj_in", "x"]
    assert names_in_model(names, sdxl) == {names[0]: sdxl[5], names[1]: sdxl[1], names[2]: sdxl[3]}
    assert diffusers_file_names(["lora_unet_down_blocks_0_resnets_0_conv1"]) == {}


def test_pefts_matrices_fit_a_1x1_convolution(tmp_path: Path) -> None:
    up, down = torch.randn(6, 2), torch.randn(2, 4)
    tensors = {"unet.proj.lora_A.weight": down, "unet.proj.lora_B.weight": up}
    save_adapter(tmp_path / "p.safetensors", tensors, {})
    layer = Layer("lora_unet_proj", torch.nn.Conv2d(4, 6, 1), "conv2d", (6, 4, 1, 1))
    module = factors_for(read_adapter(tmp_path / "p.safetensors"), [layer], "p")["lora_unet_proj"]
    assert module.tensors["down"].shape == (2, 4, 1, 1) and module.scale == 1.0
    assert module.tensors["up"].shape == (6, 2, 1, 1)
    torch.testing.assert_close(module.delta((6, 4)), up @ down)


def test_files_of_other_models_and_kinds_are_refused(tmp_path: Path) -> None:
    model = one_layer_model()
    one = {
        "lora_unet_conv.lora_down.weight": torch.zeros(1, 4, 3, 3),
        "lora_unet_conv.lora_up.weight": torch.zeros(4, 1, 1, 1),
    }
    cases: dict[str, dict[str, Tensor]] = {
        "does not fit": {key.replace("conv", "other"): value for key, value in one.items()},
        "does not fit this": {**one, "lora_unet_conv.lora_up.weight": torch.zeros(5, 1, 1, 1)},
        "does not fit this checkpoint": {**one, "lora_unet_conv.dora_scale": torch.ones(5, 1, 1, 1)},
        "1 tensors that are not read here .w_oft": {**one, "lora_unet_conv.w_oft": torch.ones(4)},
    }
    for number, (message, tensors) in enumerate(cases.items()):
        save_adapter(tmp_path / f"{number}.safetensors", tensors, {})
        with pytest.raises(UserError, match=message):
            factors_for(read_adapter(tmp_path / f"{number}.safetensors"), model.layers, "it")


def test_a_file_of_as_many_numbers_in_another_shape_is_refused() -> None:
    """The layers of two model families may hold equally many numbers; only the rows tell them apart."""
    layer = Layer("lora_unet_proj", torch.nn.Linear(6, 4), "linear", (4, 6))
    turned = AdapterModule("locon", {"up": torch.ones(6, 2), "down": torch.ones(2, 4)}, 2.0)
    with pytest.raises(UserError, match="does not fit this checkpoint"):
        factors_for(AdapterFile({}, {layer.name: turned}, ()), [layer], "it")


def test_a_lora_is_another_when_its_tensors_are(tmp_path: Path) -> None:
    path, adapter = tmp_path / "style.safetensors", new_adapter(one_layer_model().layers, AdapterConfig(conv_dim=2), 1)
    recipe, prints = recipe_of(base_weights=str(path)), []
    for metadata, moved in (({}, 0.0), ({"title": "renamed"}, 0.0), ({}, 1e-3)):
        for parameter in adapter.parameters():
            parameter.data += moved
        save_adapter(path, adapter_tensors(adapter, "fp32"), metadata)
        prints.append(open_start(recipe, None).fingerprint)
    assert prints[0] == prints[1] != prints[2]


def test_strengths_are_given_in_order_and_1_where_none_is() -> None:
    config = StartConfig(base_weights="style, other", base_weights_multiplier="0.6")
    assert config.base_loras == [("style", 0.6), ("other", 1.0)]
    for wrong in ("0.6, 1, 2", "much", "100"):
        with pytest.raises(ValueError):
            replace(config, base_weights_multiplier=wrong).base_loras  # noqa: B018


def test_paths_are_found_and_kept_private() -> None:
    values = {"network_weights": "style", "base_weights": "/home/jeff/a.safetensors, b"}
    assert named_paths(values) == ["/home/jeff/a.safetensors"]
    assert without_folders(values["base_weights"]) == "a, b"


def test_a_continued_lora_gives_its_rank_only_where_that_is_asked_for(tmp_path: Path) -> None:
    path, layers = tmp_path / "style.safetensors", one_layer_model().layers
    save_adapter(path, adapter_tensors(new_adapter(layers, AdapterConfig(algo="locon", conv_dim=3), 1), "fp32"), {})
    for asked, rank in ((False, 2), (True, 3)):
        recipe = recipe_of(network_weights=str(path), dim_from_weights=asked)
        assert open_start(recipe, None).sized(recipe, layers).adapter.conv_dim == rank
