"""Trained norms: LyCORIS' own module and names, files, continued and frozen LoRAs, and the layers they act on."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from lib_trainer.adapter.attach import Adapter, attached, new_adapter
from lib_trainer.adapter.frozen import FrozenLoras
from lib_trainer.adapter.io import adapter_tensors, read_adapter, save_adapter
from lib_trainer.adapter.layer_rules import trains_norm
from lib_trainer.adapter.norms import NormModule, apply_norm
from lib_trainer.adapter.start import config_of, continued_adapter, factors_for
from lib_trainer.cli.inspect import inspect_file
from lib_trainer.config.recipe import AdapterConfig, Recipe
from lib_trainer.host.standalone.merge_lora import merged_loras
from lib_trainer.host.standalone.model import StandaloneModel
from lib_trainer.models.base import Layer
from lib_trainer.models.families import SD1, SDXL, Family
from lib_trainer.models.layers import describe_norm
from lib_trainer.training.optimizer import parameter_groups
from tests.adapter.layers import read_plain
from tests.host.standalone_models import inputs, model_of
from tests.host.tiny_pipelines import tiny_pipeline

CONFIG = AdapterConfig(algo="locon", network_dim=2, conv_dim=1, train_norm=True)
NORMS = {"group": (nn.GroupNorm(4, 16), (2, 16, 3, 3)), "layer": (nn.LayerNorm(16), (2, 5, 16))}


def lively(n: int, seed: int = 0) -> NormModule:
    generator = torch.Generator().manual_seed(seed)
    return NormModule({name: torch.randn(n, generator=generator) * 0.3 for name in ("w", "b")})


def every_layer(model: StandaloneModel) -> list[Layer]:
    return [*model.adaptable_layers(), *model.norm_layers()]


def learned(model: StandaloneModel, config: AdapterConfig = CONFIG, seed: int = 1) -> Adapter:
    adapter = new_adapter(every_layer(model), config, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return adapter


def answer(model: StandaloneModel) -> Tensor:
    with torch.no_grad():
        return model.predict(*inputs(model))


@pytest.mark.parametrize("kind", NORMS)
@pytest.mark.parametrize("strength", [1.0, 0.6])
def test_start_outputs_and_gradients_equal_lycoris(kind: str, strength: float) -> None:
    norms = pytest.importorskip("lycoris.modules.norms")
    norm, shape = NORMS[kind]
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    theirs, ours = norms.NormModule("layer", norm, strength), lively(16)
    fresh = new_adapter([describe_norm("lora_unet_norm", norm)], CONFIG, 0).layers["lora_unet_norm"]
    for name, parameter in theirs.named_parameters():
        assert torch.equal(parameter, fresh.tensors[name[0]]) and parameter.shape == fresh.tensors[name[0]].shape
        parameter.data.copy_(ours.tensors[name[0]])
    ours.strength = strength
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    weights = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    found = []
    for module, compute in (
        (theirs, theirs),
        (ours, lambda y: apply_norm(describe_norm("n", norm), ours, lambda like: (norm.weight, norm.bias), y)),
    ):
        given = x.clone().requires_grad_()
        (compute(given) * weights).sum().backward()
        found.append([compute(given), given.grad, *(parameter.grad for parameter in module.parameters())])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", [SD1, SDXL], ids=lambda family: family.key)
@pytest.mark.parametrize("preset", ["unet-transformer-only", "attn-mlp", "attn-only", "unet-convblock-only"])
def test_the_file_holds_the_norms_that_lycoris_trains(family: Family, preset: str, tmp_path: Path) -> None:
    """Its names for SDXL are diffusers' here, which kohya's SDXL UNet does not have; the count and the shapes count."""
    kohya = pytest.importorskip("lycoris.kohya")
    model = model_of(tiny_pipeline(family, tmp_path))
    network = kohya.create_network(
        1.0, 2, 1, None, model.text_encoders, model.unet, preset=preset, algo="locon", train_norm="True"
    )
    theirs = {
        f"{module.lora_name}.{name}": tuple(parameter.shape)
        for module in (*network.unet_loras, *network.text_encoder_loras)
        for name, parameter in module.named_parameters()
        if "norm" in name
    }
    layers = [*every_layer(model), *model.text_layers()]
    tensors = adapter_tensors(new_adapter(layers, replace(CONFIG, lycoris_preset=preset), 0), "fp32")
    ours = {key: tuple(tensor.shape) for key, tensor in tensors.items() if key.endswith("_norm")}
    assert bool(ours) == (preset != "attn-only")
    if family is SD1:
        assert ours == theirs
    assert sorted(ours.values()) == sorted(theirs.values())
    assert not any(f"{key.partition('.')[0]}.alpha" in tensors for key in ours)


@pytest.mark.parametrize("family", [SD1, SDXL], ids=lambda family: family.key)
def test_a_file_draws_as_the_attached_adapter_and_leaves_the_model_as_it_was(family: Family, tmp_path: Path) -> None:
    model = model_of(tiny_pipeline(family, tmp_path))
    adapter, path = learned(model), tmp_path / "a.safetensors"
    save_adapter(path, adapter_tensors(adapter, "fp32"), {})
    before = {name: value.clone() for name, value in model.unet.state_dict().items()}
    plain = answer(model)
    with attached(adapter, every_layer(model), model.read_weight, 0.7):
        wanted = answer(model)
    with merged_loras(every_layer(model), [(path, 0.7)]):
        drawn = answer(model)
    assert float((wanted - plain).norm()) > 0.01 * float(plain.norm())
    torch.testing.assert_close(drawn, wanted, rtol=1e-4, atol=1e-4)
    assert all(torch.equal(value, before[name]) for name, value in model.unet.state_dict().items())
    frozen = FrozenLoras([(factors_for(read_adapter(path), every_layer(model), "a"), 0.7)])
    with attached(Adapter({}), every_layer(model), frozen.over(model.read_weight)):
        torch.testing.assert_close(answer(model), wanted, rtol=1e-4, atol=1e-4)
    # The norms are a part of it that one sees.
    without = {key: value for key, value in load_file(path).items() if not key.endswith("_norm")}
    save_adapter(tmp_path / "b.safetensors", without, {})
    with merged_loras(every_layer(model), [(tmp_path / "b.safetensors", 0.7)]):
        assert float((answer(model) - wanted).norm()) > 0.01 * float(plain.norm())


def test_a_file_is_read_and_continued_as_it_was_written(tmp_path: Path) -> None:
    model = model_of(tiny_pipeline(SD1, tmp_path))
    adapter, path = learned(model), tmp_path / "a.safetensors"
    save_adapter(path, adapter_tensors(adapter, "fp32"), {})
    file = read_adapter(path)
    assert file.unmatched == () and set(file.factors) == set(adapter.layers)
    found = factors_for(file, every_layer(model), "a")
    assert config_of(found, every_layer(model), AdapterConfig()).train_norm
    for whole in (True, False):
        went_on, fresh = continued_adapter(found, every_layer(model), CONFIG, 0, dim_from_weights=whole)
        assert fresh == 0
        for name, module in adapter.layers.items():
            assert all(torch.equal(went_on.layers[name].tensors[key], value) for key, value in module.tensors.items())
    inspected = inspect_file(path)
    assert not inspected.values["unmatched_keys"] and inspected.values["adapter"] == ["LoCon", "norms"]


def test_damaged_norms_are_said_and_not_read(tmp_path: Path) -> None:
    tensors = adapter_tensors(Adapter({"lora_unet_norm": lively(4)}), "fp32")
    for name, change in (("w_norm", torch.zeros(2, 2)), ("b_norm", torch.zeros(5))):
        broken = {**tensors, f"lora_unet_norm.{name}": change}
        other = {f"lora_unet_x.lora_{way}.weight": torch.ones(2, 2) for way in ("up", "down")}
        save_adapter(tmp_path / "broken.safetensors", {**broken, **other}, {})
        assert set(read_adapter(tmp_path / "broken.safetensors").unmatched) == set(broken)


def test_norms_have_the_rate_of_their_part_and_no_share_in_lora_plus() -> None:
    layer = describe_norm("lora_unet_down_blocks_0_attentions_0_norm", nn.GroupNorm(2, 4))
    recipe = Recipe().with_values({"algo": "locon", "train_norm": True, "loraplus_lr_ratio": 16.0})
    adapter = new_adapter([layer], recipe.adapter, 0)
    (group,) = parameter_groups(recipe, adapter)
    assert group["lr"] == recipe.training.learning_rate and len(group["params"]) == 2
    assert not parameter_groups(recipe, Adapter({}))
    by_name = replace(recipe.adapter, network_reg_dims="_attentions_=0")
    with pytest.raises(Exception, match="trains no layer"):
        new_adapter([layer], by_name, 0)


def test_dropped_channels_and_norms_act_as_the_base() -> None:
    norm, module = nn.GroupNorm(2, 4), lively(4)
    layer, x = describe_norm("lora_unet_norm", norm), torch.randn(1, 4, 2, 2)
    with attached(Adapter({layer.name: module}), [layer], read_plain):
        module.row_mask = torch.tensor([1.0, 0, 0, 1])
        changed = (norm(x) - nn.GroupNorm(2, 4)(x)).abs().amax((0, 2, 3)) > 0
        assert changed.tolist() == [True, False, False, True]
        module.dropped = True
        assert torch.equal(norm(x), nn.GroupNorm(2, 4)(x))


def test_a_change_of_a_half_precision_norm_is_rounded_once() -> None:
    # Half a step of bf16 at 1, and a little more, which the change itself would lose in bf16.
    module = NormModule({name: torch.full((4,), 2**-8 + 1e-5) for name in ("w", "b")})
    for value in module.changed(*(torch.ones(4, dtype=torch.bfloat16) for _ in range(2))):
        assert torch.equal(value, torch.full((4,), 1 + 2**-7, dtype=torch.bfloat16))


def test_no_limit_of_norms_shrinks_a_trained_norm() -> None:
    module = lively(4)
    Adapter({"lora_unet_norm": module}).limit_norms(1e-3)
    assert all(torch.equal(value, lively(4).tensors[name]) for name, value in module.tensors.items())


def test_norms_are_trained_whatever_the_rank_of_the_layers() -> None:
    name = "lora_unet_down_blocks_0_attentions_0_norm"
    assert trains_norm(name, replace(CONFIG, network_dim=0))
    assert not trains_norm(name, replace(CONFIG, network_dim=0, train_norm=False))


def test_an_adapter_without_norms_leaves_the_module_alone() -> None:
    with ExitStack() as undo:
        norm = nn.LayerNorm(4)
        undo.enter_context(attached(Adapter({}), [describe_norm("lora_unet_norm", norm)], read_plain))
        x = torch.randn(3, 4)
        assert torch.equal(norm(x), nn.LayerNorm(4)(x))
