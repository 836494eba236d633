"""Our layers against LyCORIS' own modules, and our files against LyCORIS' own reader."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from torch import nn

from lib_trainer.adapter.attach import Adapter, new_adapter
from lib_trainer.adapter.fresh import _lycoris_module
from lib_trainer.adapter.io import adapter_tensors, read_adapter, save_adapter
from lib_trainer.adapter.keys import FILE_KEYS
from lib_trainer.adapter.modules import AdapterModule
from lib_trainer.config.recipe import AdapterConfig
from tests.adapter.layers import CASES, OPERATIONS, RECIPES, an_input, as_layer, as_module, lively_factors

lycoris = pytest.importorskip("lycoris")
RELEASE = tuple(int(part) for part in version("lycoris-lora").split(".")[:2])


def their_module(recipe: str, name: str, factors: AdapterModule) -> tuple[nn.Module, nn.Module]:
    """LyCORIS' module on a plain torch layer, with the factors' values, in float64."""
    operation, config = OPERATIONS[name], RECIPES[recipe]
    wide = operation.is_conv and operation.shape[2:] != (1, 1)
    layer = as_module(operation).double()
    module = _lycoris_module(config.algo)(
        "layer",
        layer,
        lora_dim=config.conv_dim if wide else config.network_dim,
        alpha=config.conv_alpha if wide else config.network_alpha,
        use_tucker=config.use_tucker,
        factor=config.factor,
        decompose_both=config.decompose_both,
        full_matrix=config.full_matrix,
    ).double()
    theirs = dict(module.named_parameters())
    with torch.no_grad():
        for ours, value in factors.tensors.items():
            theirs[FILE_KEYS[config.algo][ours]].copy_(value)
    return layer, module


@pytest.mark.skipif(RELEASE < (4, 0), reason="LyCORIS before 4.1.3 computes wrong tucker LoHa gradients")
@pytest.mark.parametrize(("recipe", "name"), [case for case in CASES if case[1] != "3x3 grouped"])
def test_outputs_and_gradients_equal_lycoris(recipe: str, name: str) -> None:
    factors = lively_factors(recipe, OPERATIONS[name])
    layer, module = their_module(recipe, name, factors)
    x = an_input(OPERATIONS[name]).requires_grad_()
    ours = factors.apply_to(OPERATIONS[name], lambda like: (layer.weight.detach(), layer.bias.detach()), x)
    theirs = module(x)
    # LyCORIS computes (W + ΔW) − W and x·scale in its own order.
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)

    by_name = dict(module.named_parameters())
    their_parameters = [by_name[FILE_KEYS[factors.algo][name]] for name in factors.names]
    mine = torch.autograd.grad(ours.square().sum(), [x, *factors.parameters()])
    wanted = torch.autograd.grad(theirs.square().sum(), [x, *their_parameters])
    for one, other in zip(mine, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6 * float(other.abs().max() + 1))


@pytest.mark.parametrize("recipe", list(RECIPES))
def test_lycoris_reads_our_file(recipe: str, tmp_path: Path) -> None:
    """`create_lycoris_from_weights` builds the same ΔW from the file that we trained."""
    if RECIPES[recipe].decompose_both:
        pytest.skip("LyCORIS' reader rebuilds the factorization from W1 and refuses a low-rank one")
    if recipe == "lokr tucker":
        pytest.skip("LyCORIS' reader takes the rank from the wrong side of a tucker LoKr")
    names = ("linear", "1x1", "3x3")
    model = nn.ModuleDict({name.replace(" ", "_"): as_module(OPERATIONS[name]) for name in names})
    adapter = Adapter({f"lycoris_{name}": lively_factors(recipe, OPERATIONS[name], i) for i, name in enumerate(names)})
    path = tmp_path / "file.safetensors"
    save_adapter(path, adapter_tensors(adapter, "fp32"), {})

    network, _ = lycoris.create_lycoris_from_weights(1.0, str(path), model)
    assert len(network.loras) == len(names)
    for lora in network.loras:
        factors = adapter.layers[lora.lora_name]
        with torch.no_grad():
            made = lora.make_weight() if recipe.startswith("locon") else lora.get_weight(lora.shape)
            theirs = made.reshape(lora.shape) * (lora.scale if recipe.startswith("locon") else 1)
        torch.testing.assert_close(theirs, factors.float().delta(lora.shape).detach(), rtol=1e-5, atol=1e-6)
    assert read_adapter(path).unmatched == ()


def test_start_values_are_lycoris_own_and_follow_the_seed() -> None:
    layers = [as_layer(f"lora_unet_{i}", as_module(op), op) for i, op in enumerate(OPERATIONS.values())]
    config = AdapterConfig(algo="loha", network_dim=4, conv_dim=2, use_tucker=True)
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    one, two, other = (new_adapter(layers, config, seed) for seed in (7, 7, 8))
    assert torch.equal(before, torch.random.get_rng_state())
    for a, b, c in zip(one.parameters(), two.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c) == bool((a == 0).all())
    first = one.layers["lora_unet_0"]
    assert float(first.w2_a.abs().max()) == 0
    assert 0.07 < float(first.w1_a.std()) < 0.13
    assert all(float(factors.delta().abs().max()) == 0 for factors in one.layers.values())
