"""Which parameter learns at which rate, and what holds an adapter's norm."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from lib_trainer.adapter.attach import Adapter, attached, new_adapter
from lib_trainer.adapter.delta_weight import DELTAS
from lib_trainer.config.recipe import AdapterConfig, Recipe
from lib_trainer.models.base import Layer
from lib_trainer.training.optimizer import make_optimizer, parameter_groups
from lib_trainer.training.schedules import make_schedule
from tests.training.small import one_layer_model, recipe_of, train

NAMES = (
    "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q",
    "lora_unet_mid_block_attentions_0_proj_in",
    "lora_te1_text_model_encoder_layers_0_mlp_fc1",
    "lora_te2_text_model_encoder_layers_0_mlp_fc1",
)


def adapter_of(recipe: Recipe) -> Adapter:
    layers = [Layer(name, nn.Linear(16, 12), "linear", (12, 16)) for name in NAMES]
    trained = [layer for layer in layers if recipe.training.rate_of(layer.name) > 0]
    return new_adapter(trained, recipe.adapter, 0)


def recipe_with(**values: Any) -> Recipe:
    common = {"algo": "locon", "network_dim": 2, "learning_rate": 1e-3, "text_encoder_lr": 1e-4, "optimizer": "AdamW"}
    return Recipe().with_values({**common, **values})


def rates(recipe: Recipe) -> dict[str, float]:
    """Parameter -> its rate."""
    adapter = adapter_of(recipe)
    names = {parameter: name for name, parameter in adapter.named_parameters()}
    groups = parameter_groups(recipe, adapter)
    found = {names[parameter]: group["lr"] for group in groups for parameter in group["params"]}
    assert found.keys() == set(names.values()) and sum(len(group["params"]) for group in groups) == len(names)
    return found


def test_each_text_encoder_has_its_own_rate() -> None:
    found = rates(recipe_with(text_encoder2_lr=2e-5))
    assert {name.split("_")[1]: rate for name, rate in found.items()} == {"unet": 1e-3, "te1": 1e-4, "te2": 2e-5}
    assert {name.split("_")[1] for name in rates(recipe_with(text_encoder2_lr=0))} == {"unet", "te1"}
    assert {name.split("_")[1] for name in rates(recipe_with(text_encoder_lr=0, text_encoder2_lr=1e-5))} == {
        "unet",
        "te2",
    }
    assert {rate for name, rate in rates(recipe_with()).items() if "te2" in name} == {1e-4}


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize(("algo", "last"), [("locon", "up"), ("loha", "w2_a"), ("lokr", "w2_b")])
def test_lora_plus_raises_the_rate_of_what_begins_at_zero(algo: str, last: str, fused: bool) -> None:
    values = {"loraplus_lr_ratio": 16, "loraplus_text_encoder_lr_ratio": 4, "fused_backward_pass": fused, "factor": 2}
    recipe = recipe_with(algo=algo, **values)
    adapter = adapter_of(recipe)
    for name, rate in rates(recipe).items():
        zero = not adapter.get_parameter(name).any()
        assert zero == name.endswith(f".{last}")
        base, ratio = (1e-4, 4) if "_te" in name else (1e-3, 16)
        assert rate == pytest.approx(base * ratio if zero else base)


def test_rates_by_block_and_by_name() -> None:
    weights = {"down_lr_weight": "1,1,1,1,0.25", "mid_lr_weight": "0.5", "network_reg_lrs": "te1=3e-6"}
    found = rates(recipe_with(**weights))
    assert {name.split(".")[1]: rate for name, rate in found.items()} == {
        NAMES[0]: 2.5e-4, NAMES[1]: 5e-4, NAMES[2]: 3e-6, NAMES[3]: 1e-4,
    }  # fmt: skip
    # As with sd-scripts, a block without a rate gets no factors.
    assert not any("mid_block" in name for name in rates(recipe_with(mid_lr_weight="0")))


def test_text_encoders_stop_while_the_unet_goes_on() -> None:
    recipe = recipe_with(stop_text_encoder_training=40, lr_scheduler="constant")
    made, _ = make_optimizer(recipe.training, parameter_groups(recipe, adapter_of(recipe)), torch.device("cpu"))
    schedule, seen = make_schedule(recipe.training, made, 10), []
    for _ in range(10):
        seen.append([group["lr"] for group in made.param_groups])
        made.step()
        schedule.step()
    assert seen == [[1e-3, 1e-4]] * 4 + [[1e-3, 0.0]] * 6


@pytest.mark.parametrize("algo", ["locon", "loha", "lokr"])
def test_norms_are_scaled_as_sd_scripts_scales_them(algo: str) -> None:
    adapter = new_adapter(one_layer_model().layers, AdapterConfig(algo=algo, conv_dim=2, conv_alpha=1, factor=2), 0)
    (module,) = adapter.layers.values()
    for parameter in adapter.parameters():
        parameter.data.normal_()
    before, change = [parameter.clone() for parameter in adapter.parameters()], module.delta().detach()
    adapter.limit_norms(2 * float(change.norm()))
    assert all(torch.equal(a, b) for a, b in zip(adapter.parameters(), before, strict=True)), "small enough"
    adapter.limit_norms(0.5)
    torch.testing.assert_close(module.delta().detach(), change * 0.5 / change.norm())
    share = (0.5 / float(change.norm())) ** (1 / len(before))
    for parameter, old in zip(adapter.parameters(), before, strict=True):
        torch.testing.assert_close(parameter.detach(), old.detach() * share)


def test_a_run_keeps_within_the_norm() -> None:
    free, held = (train(recipe_of(scale_weight_norms=most))[0].layers["lora_unet_conv"] for most in (0, 0.05))
    assert float(free.delta().norm().detach()) > 0.06
    assert float(held.delta().norm().detach()) <= 0.05 * 1.0001


def test_rank_stabilized_scaling_is_in_the_alpha_of_the_file() -> None:
    plain, stable = (
        new_adapter(one_layer_model().layers, AdapterConfig(algo="locon", conv_dim=9, conv_alpha=3, rs_lora=on), 0)
        for on in (False, True)
    )
    one, other = (adapter.layers["lora_unet_conv"] for adapter in (plain, stable))
    # Kalajdzievski, "A Rank Stabilization Scaling Factor" (2023): α/√r.
    assert one.scale == pytest.approx(3 / 9) and other.scale == pytest.approx(3 / 9**0.5)
    # What any program that reads the file computes.
    assert other.alpha / other.rank == pytest.approx(1.0)


def test_rank_dropout_is_rescaled_by_the_share_that_was_kept() -> None:
    model = one_layer_model()
    for scaled in (False, True):
        config = AdapterConfig(algo="locon", conv_dim=2, rank_dropout=0.5, rank_dropout_scale=scaled)
        adapter = new_adapter(model.layers, config, 0)
        adapter.draw_dropout(config, torch.Generator().manual_seed(0))
        mask = adapter.layers["lora_unet_conv"].row_mask
        kept = (mask > 0).float()
        assert 0 < float(kept.mean()) < 1
        torch.testing.assert_close(mask, kept / kept.mean() if scaled else kept)


@pytest.mark.parametrize("use_tucker", [False, True])
def test_network_dropout_leaves_out_values_between_the_factors(use_tucker: bool) -> None:
    model = one_layer_model()
    config = AdapterConfig(algo="locon", conv_dim=3, use_tucker=use_tucker, network_dropout=0.5)
    adapter = new_adapter(model.layers, config, 0)
    (module,) = adapter.layers.values()
    for parameter in adapter.parameters():
        parameter.data.normal_()
    x, conv = torch.randn(2, 4, 6, 6), model.unet.conv
    with attached(adapter, model.layers, model.read_weight), torch.no_grad():
        whole = conv(x)
        adapter.draw_dropout(config, torch.Generator().manual_seed(1))
        one, again = conv(x), conv(x)
        assert torch.equal(one, again), "a recomputation leaves out the same values"
        adapter.draw_dropout(config, torch.Generator().manual_seed(2))
        assert not torch.equal(one, conv(x))
        with adapter.at(1.0):
            torch.testing.assert_close(conv(x), whole)
        # Its mean is the output without dropout.
        draws = []
        for seed in range(400):
            adapter.draw_dropout(config, torch.Generator().manual_seed(seed))
            draws.append(conv(x))
    plain = torch.nn.functional.conv2d(x, conv.weight, conv.bias, padding=1)
    change = DELTAS["locon"](module.tensors).reshape(4, 4, 3, 3) * module.scale
    torch.testing.assert_close(whole, plain + torch.nn.functional.conv2d(x, change, padding=1), rtol=1e-4, atol=1e-4)
    error = torch.stack(draws).mean(0) - whole
    assert float(error.norm()) < 0.12 * float((whole - plain).norm())
