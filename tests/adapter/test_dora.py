"""DoRA: the formula, LyCORIS' module, what WebUIs make of a file, and files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from lib_trainer.adapter.attach import Adapter, new_adapter
from lib_trainer.adapter.dora import DORA, decomposed
from lib_trainer.adapter.fresh import _lycoris_module
from lib_trainer.adapter.io import adapter_tensors, read_adapter, save_adapter
from lib_trainer.adapter.keys import FILE_KEYS
from lib_trainer.adapter.modules import AdapterModule
from lib_trainer.adapter.start import config_of, continued_adapter, factors_for
from lib_trainer.config.recipe import AdapterConfig
from lib_trainer.errors import UserError
from lib_trainer.memory.layer_cost import layer_cost
from lib_trainer.memory.storage_peak import StoragePeak
from lib_trainer.models.base import Layer
from tests.adapter.layers import (
    OPERATIONS,
    RECIPES,
    a_weight,
    an_input,
    as_layer,
    as_module,
    lively_factors,
    read_plain,
)
from tests.adapter.test_kernels import gradients, plain, written_out_delta

# Axes of a weight that one magnitude spans, for its columns and its rows.
AXES = {False: (0, 2, 3), True: (1, 2, 3)}
CASES = [
    ("loha", "linear", False),
    ("lokr", "3x3", False),
    ("locon", "3x3 grouped", True),
    ("loha tucker", "3x3", True),
]


def lively_dora(recipe: str, name: str, on_output: bool, dtype: torch.dtype = torch.float64) -> AdapterModule:
    """Factors and magnitudes none of which is at its start."""
    operation = OPERATIONS[name]
    factors = lively_factors(recipe, operation, dtype=dtype)
    weight, _ = a_weight(operation, dtype=dtype)
    axes = [axis for axis in AXES[on_output] if axis < weight.ndim]
    factors.dora_scale = nn.Parameter(weight.square().sum(axes, keepdim=True).sqrt() * 1.3 + 0.1)
    return factors


def written_out(factors: AdapterModule, weight: Tensor, on_output: bool, mask: Tensor | float = 1.0) -> Tensor:
    direction = weight + mask * written_out_delta(factors).reshape(weight.shape)
    axes = [axis for axis in AXES[on_output] if axis < weight.ndim]
    return factors.dora_scale * direction / direction.square().sum(axes, keepdim=True).sqrt()


@pytest.mark.parametrize(("recipe", "name", "on_output"), CASES)
@pytest.mark.parametrize("strength", [1.0, 0.6])
def test_outputs_and_gradients_equal_plain_autograd(recipe: str, name: str, on_output: bool, strength: float) -> None:
    operation, factors = OPERATIONS[name], lively_dora(recipe, name, on_output)
    factors.strength, factors.row_mask = strength, (torch.arange(operation.shape[0]) % 3 != 0).double()
    x, (weight, bias) = an_input(operation).requires_grad_(), a_weight(operation)
    mask = factors.row_mask.reshape(-1, *[1] * (weight.ndim - 1))
    inputs = [x, *factors.parameters()]
    wanted = weight + strength * (written_out(factors, weight, on_output, mask) - weight)
    expected = plain(operation, x, wanted, bias)
    actual = factors.apply_to(operation, lambda like: (weight, bias), x)
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)
    for mine, theirs in zip(gradients(actual, inputs), gradients(expected, inputs), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(("recipe", "name", "on_output"), CASES)
def test_start_outputs_and_gradients_equal_lycoris(recipe: str, name: str, on_output: bool) -> None:
    pytest.importorskip("lycoris.kernels", reason="LyCORIS before 4 builds tucker and grouped layers otherwise")
    operation, config = OPERATIONS[name], RECIPES[recipe]
    layer = as_module(operation)
    start = AdapterConfig(**{**config.__dict__, "dora_wd": True, "wd_on_output": on_output})
    wide = operation.is_conv
    theirs = _lycoris_module(config.algo)(
        "layer", layer, lora_dim=config.conv_dim if wide else config.network_dim,
        alpha=config.conv_alpha if wide else config.network_alpha, use_tucker=config.use_tucker, factor=config.factor,
        weight_decompose=True, wd_on_out=on_output,
    )  # fmt: skip
    made = new_adapter([as_layer("lora_unet_x", layer, operation)], start, 0, read_plain).layers["lora_unet_x"]
    torch.testing.assert_close(made.dora_scale, theirs.dora_scale)

    factors = lively_dora(recipe, name, on_output)
    layer, theirs = layer.double(), theirs.double()
    by_name = dict(theirs.named_parameters())
    with torch.no_grad():
        by_name[DORA].copy_(factors.dora_scale)
        for ours, value in factors.tensors.items():
            by_name[FILE_KEYS[config.algo][ours]].copy_(value)
    x = an_input(operation).requires_grad_()
    mine = factors.apply_to(operation, lambda like: (layer.weight.detach(), layer.bias.detach()), x)
    answer = theirs(x)
    torch.testing.assert_close(mine, answer, rtol=1e-6, atol=1e-6)
    parameters = [by_name[FILE_KEYS[config.algo][name]] for name in factors.names] + [by_name[DORA]]
    wanted = gradients(answer, [x, *parameters])
    for one, other in zip(gradients(mine, [x, *factors.parameters()]), wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6 * float(other.abs().max() + 1))


def in_comfyui(weight: Tensor, delta: Tensor, magnitude: Tensor, strength: float) -> Tensor:
    """`weight_decompose` of ComfyUI, Forge, Forge Neo and reForge: per row, the norm is that of W alone."""
    changed = weight + delta
    if magnitude.shape[0] == weight.shape[0]:
        norm = weight.reshape(weight.shape[0], -1).norm(dim=1).reshape(-1, *[1] * (weight.ndim - 1))
    else:
        norm = changed.transpose(0, 1).reshape(weight.shape[1], -1).norm(dim=1)
        norm = norm.reshape(-1, *[1] * (weight.ndim - 1)).transpose(0, 1)
    return weight + strength * (changed * (magnitude / norm) - weight)


def in_a1111(weight: Tensor, delta: Tensor, magnitude: Tensor, strength: float) -> Tensor:
    """`apply_weight_decompose` of A1111: the norm is that of the columns, whatever the magnitudes are of."""
    changed = weight + delta
    norm = changed.transpose(0, 1).reshape(weight.shape[1], -1).norm(dim=1)
    norm = norm.reshape(-1, *[1] * (weight.ndim - 1)).transpose(0, 1)
    return weight + strength * (changed * (magnitude / norm) - weight)


@pytest.mark.parametrize("name", ["linear", "3x3"])
@pytest.mark.parametrize("program", [in_comfyui, in_a1111])
def test_webuis_draw_the_norm_per_input_as_trained_and_the_one_per_output_otherwise(program, name: str) -> None:
    differences = {}
    for on_output in (False, True):
        factors, (weight, _) = lively_dora("locon", name, on_output), a_weight(OPERATIONS[name])
        with torch.no_grad():
            ours = weight + 0.8 * factors.change(weight)
            theirs = program(weight, factors.delta(weight.shape), factors.dora_scale, 0.8)
        differences[on_output] = float((ours - theirs).norm() / (ours - weight).norm())
    assert differences[False] < 1e-12 and differences[True] > 0.01


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_in_half_precision_a_small_change_is_not_lost(dtype: torch.dtype) -> None:
    operation = OPERATIONS["wide linear"]
    factors = lively_dora("loha", "wide linear", False, torch.float32)
    weight, _ = a_weight(operation, dtype=torch.float32)
    # Magnitudes moved by a fraction of what half precision resolves.
    factors.dora_scale = nn.Parameter((weight + factors.delta(weight.shape)).norm(dim=0, keepdim=True).detach() * 1.001)
    x = an_input(operation, dtype=torch.float32).repeat(1, 200, 1)
    half = weight.to(dtype)
    exact = factors.apply_to(operation, lambda like: (half.float(), None), x.to(dtype).float())
    found = factors.apply_to(operation, lambda like: (half, None), x.to(dtype)).float()
    unmoved = exact / 1.001
    # The change, projected on what it should be.
    share = ((found - unmoved) * (exact - unmoved)).sum() / (exact - unmoved).square().sum()
    assert 0.8 < float(share) < 1.2
    mine, wanted = (gradients(y, list(factors.parameters())) for y in (found, exact))
    for one, other in zip(mine, wanted, strict=True):
        assert float(nn.functional.cosine_similarity(one.flatten(), other.flatten(), 0)) > 0.999


def test_the_plan_counts_the_magnitudes_and_what_backward_builds() -> None:
    operation, config = OPERATIONS["wide linear"], AdapterConfig(algo="locon", network_dim=4, dora_wd=True)
    cost = layer_cost(operation, (2, 5, 32), config, torch.float32, reads_copy=False)
    assert cost.factors == ((4, 32), (96, 4), (1, 32)) or set(cost.factors) == {(4, 32), (96, 4), (1, 32)}
    # Beside the plain layer's: W', V and the gradient of W' instead of W + ΔW and one gradient.
    factors = lively_dora("locon", "wide linear", False, torch.float32)
    x, (weight, bias) = (
        an_input(operation, dtype=torch.float32).requires_grad_(),
        a_weight(operation, dtype=torch.float32),
    )
    y = factors.apply_to(operation, lambda like: (weight, bias), x)
    peak, grad = StoragePeak(), torch.ones_like(y)
    peak.ignore([weight, bias, x, y, grad, *factors.parameters()])
    with peak:
        made = torch.autograd.grad(y, [x, *factors.parameters()], grad)
    own = sum(tensor.nbytes for tensor in made[1:])
    assert cost.backward == pytest.approx(peak.peak - own, rel=0.05)


def a_layer(on_output: bool) -> tuple[Layer, AdapterModule]:
    operation = OPERATIONS["3x3"]
    return as_layer("lora_unet_conv", as_module(operation), operation), lively_dora(
        "locon", "3x3", on_output, torch.float32
    )


@pytest.mark.parametrize("on_output", [False, True])
def test_a_file_keeps_the_magnitudes_in_float32_and_a_run_continues_it(tmp_path: Path, on_output: bool) -> None:
    layer, factors = a_layer(on_output)
    path = tmp_path / "dora.safetensors"
    save_adapter(path, adapter_tensors(Adapter({layer.name: factors}), "fp16"), {})
    assert torch.equal(load_file(path)[f"{layer.name}.{DORA}"], factors.dora_scale)
    file = read_adapter(path)
    assert (file.dora, file.unmatched) == ((layer.name,), ())
    found = factors_for(file, [layer], "dora")
    plain_config = AdapterConfig(algo="locon", conv_dim=3, conv_alpha=1)
    config = config_of(found, [layer], plain_config)
    assert (config.dora_wd, config.wd_on_output, config.conv_dim) == (True, on_output, 3)
    for whole in (True, False):
        adapter, fresh = continued_adapter(found, [layer], config, 0, dim_from_weights=whole, read_weight=read_plain)
        assert fresh == 0 and torch.equal(adapter.layers[layer.name].dora_scale, factors.dora_scale)
    with pytest.raises(UserError, match="another type or rank"):
        continued_adapter(found, [layer], plain_config, 0, dim_from_weights=False)


def test_pefts_magnitudes_are_those_of_rows(tmp_path: Path) -> None:
    tensors = {
        "unet.proj.lora_A.weight": torch.randn(2, 4),
        "unet.proj.lora_B.weight": torch.randn(4, 2),
        # PEFT turns those of a convolution on their side.
        "unet.proj.lora_magnitude_vector.weight": torch.rand(1, 4, 1, 1) + 1,
    }
    save_adapter(tmp_path / "p.safetensors", tensors, {})
    layer = Layer("lora_unet_proj", nn.Conv2d(4, 4, 1), "conv2d", (4, 4, 1, 1))
    module = factors_for(read_adapter(tmp_path / "p.safetensors"), [layer], "p")["lora_unet_proj"]
    assert module.dora_scale.shape == (4, 1, 1, 1)


def test_lycoris_reads_the_file(tmp_path: Path) -> None:
    lycoris = pytest.importorskip("lycoris")
    layer, factors = a_layer(True)
    model = nn.ModuleDict({"conv": layer.module})
    save_adapter(tmp_path / "d.safetensors", adapter_tensors(Adapter({"lycoris_conv": factors}), "fp32"), {})
    network, _ = lycoris.create_lycoris_from_weights(1.0, str(tmp_path / "d.safetensors"), model)
    with torch.no_grad():
        merged, _ = network.loras[0].get_merged_weight()
    weight = layer.module.weight.detach()
    torch.testing.assert_close(merged.detach(), weight + factors.change(weight).detach(), rtol=1e-4, atol=1e-5)


def test_a_row_of_zeros_stays_zero() -> None:
    weight = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    torch.testing.assert_close(
        decomposed(weight, torch.tensor([[2.0], [10.0]])), torch.tensor([[0.0, 0.0], [6.0, 8.0]])
    )
