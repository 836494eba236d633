from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lib_trainer.adapter.attach import attached, new_adapter
from lib_trainer.config.recipe import AdapterConfig
from lib_trainer.errors import UserError
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


def model_of(names: list[str]) -> tuple[nn.ModuleList, list]:
    modules = nn.ModuleList(as_module(OPERATIONS[name]) for name in names)
    layers = [as_layer(f"lora_unet_{i}", m, OPERATIONS[n]) for i, (m, n) in enumerate(zip(modules, names, strict=True))]
    return modules, layers


@pytest.mark.parametrize("strength", [1.0, 0.5, -1.0])
@pytest.mark.parametrize("recipe", list(RECIPES))
def test_an_attached_adapter_acts_as_the_sum_of_the_weights(recipe: str, strength: float) -> None:
    for name in ("linear", "3x3"):
        modules, layers = model_of([name])
        adapter = new_adapter(layers, RECIPES[recipe], seed=0)
        adapter.layers["lora_unet_0"] = lively_factors(recipe, OPERATIONS[name], dtype=torch.float32)
        x = an_input(OPERATIONS[name], dtype=torch.float32)
        with attached(adapter, layers, read_plain, strength):
            y = modules[0](x)
        with torch.no_grad():
            modules[0].weight += strength * adapter.layers["lora_unet_0"].delta(modules[0].weight.shape)
        torch.testing.assert_close(y, modules[0](x), rtol=1e-4, atol=1e-5)


def test_everything_is_taken_off_again_even_after_a_failure() -> None:
    modules, layers = model_of(["linear", "3x3"])
    own_forward = lambda x: x  # noqa: E731
    modules[1].forward = own_forward
    adapter = new_adapter(layers, RECIPES["loha"], seed=0)
    with pytest.raises(ZeroDivisionError), attached(adapter, layers, read_plain, 0.3):
        assert "forward" in modules[0].__dict__
        raise ZeroDivisionError
    assert "forward" not in modules[0].__dict__
    assert modules[1].forward is own_forward
    assert {factors.strength for factors in adapter.layers.values()} == {1.0}


def test_conv_rank_zero_leaves_wide_convolutions_alone() -> None:
    _, layers = model_of(["linear", "1x1", "3x3"])
    adapter = new_adapter(layers, AdapterConfig(conv_dim=0), seed=0)
    assert list(adapter.layers) == ["lora_unet_0", "lora_unet_1"]
    with pytest.raises(UserError, match="no layer"):
        new_adapter(layers[2:], AdapterConfig(conv_dim=0), seed=0)


def test_dropout_silences_layers_and_rows_and_nothing_else() -> None:
    modules, layers = model_of(["linear"] * 40)
    adapter = new_adapter(layers, RECIPES["lokr full"], seed=0)
    for i, name in enumerate(adapter.layers):
        adapter.layers[name] = lively_factors("lokr full", OPERATIONS["linear"], i, torch.float32)
    x = an_input(OPERATIONS["linear"], dtype=torch.float32)
    plain = [module(x) for module in modules]
    config = AdapterConfig(algo="lokr", rank_dropout=0.5, module_dropout=0.25)
    with attached(adapter, layers, read_plain):
        adapter.draw_dropout(config, torch.Generator().manual_seed(0))
        dropped = [module(x) for module in modules]
        again = [module(x) for module in modules]
    silenced = sum(torch.equal(a, b) for a, b in zip(plain, dropped, strict=True))
    assert 3 <= silenced <= 18
    assert all(torch.equal(a, b) for a, b in zip(dropped, again, strict=True))
    live = [(a, b) for a, b in zip(plain, dropped, strict=True) if not torch.equal(a, b)]
    untouched_rows = torch.stack([(a - b).abs().flatten(0, -2).amax(0) < 1e-6 for a, b in live]).float().mean()
    assert 0.35 < untouched_rows < 0.65
    with attached(adapter, layers, read_plain):
        assert not any(torch.equal(module(x), a) for module, a in zip(modules, plain, strict=True))


def test_rank_dropout_keeps_its_share_and_moves_all_masks_at_once() -> None:
    _, layers = model_of(["linear"] * 40)
    adapter = new_adapter(layers, RECIPES["lokr full"], seed=0)
    adapter.draw_dropout(AdapterConfig(algo="lokr", rank_dropout=0.2), torch.Generator().manual_seed(0))
    masks = [module.row_mask for module in adapter.layers.values()]
    assert torch.cat(masks).mean() == pytest.approx(0.8, abs=0.05)
    # Views of one tensor: on a GPU one transfer a micro-batch, not one a layer and pass.
    assert len({mask.untyped_storage().data_ptr() for mask in masks}) == 1
    # Drawn layer by layer, as before: a resumed run of an older state drops the same rows.
    generator = torch.Generator().manual_seed(0)
    for module, mask in zip(adapter.layers.values(), masks, strict=True):
        assert torch.equal(mask, (torch.rand(module.out_features, generator=generator) >= 0.2).float())


def test_rank_dropout_scale_raises_the_rows_that_stay() -> None:
    _, layers = model_of(["linear"] * 8)
    adapter = new_adapter(layers, RECIPES["lokr full"], seed=0)
    config = AdapterConfig(algo="lokr", rank_dropout=0.5, rank_dropout_scale=True)
    adapter.draw_dropout(config, torch.Generator().manual_seed(0))
    for module in adapter.layers.values():
        # By LyCORIS' way: whatever share was drawn, the rows weigh as much together as without dropout.
        assert module.row_mask.mean() == pytest.approx(1.0) and len(module.row_mask.unique()) == 2


@pytest.mark.parametrize("operation", ["linear", "3x3"])
@pytest.mark.parametrize("recipe", list(RECIPES))
def test_rank_dropout_masks_the_rows_of_the_layer_whatever_the_adapter(recipe: str, operation: str) -> None:
    module = lively_factors(recipe, OPERATIONS[operation], 0)
    assert module.out_features == a_weight(OPERATIONS[operation])[0].shape[0]


@pytest.mark.parametrize("operation", ["linear", "3x3"])
@pytest.mark.parametrize("recipe", ["locon", "locon tucker"])
def test_what_is_left_out_between_the_factors_leaves_the_strength_alone(recipe: str, operation: str) -> None:
    """A slider trains at strengths of both signs, with its dropout."""
    op = OPERATIONS[operation]
    module, x, frozen = lively_factors(recipe, op, 0), an_input(op), a_weight(op)
    base = op(x, frozen[0]) + frozen[1].reshape(-1, *[1] * (2 * op.is_conv))

    def change(strength: float) -> Tensor:
        module.strength = strength
        return module.apply_to(op, lambda _: frozen, x) - base

    for dropout, ranks in (((0.25, 7), None), (None, torch.tensor([[1.0], [0.0]]).expand(2, module.rank))):
        module.dropout, module.rank_mask = dropout, ranks
        assert change(1.0).abs().max() > 0.01
        torch.testing.assert_close(change(-2.0), -2 * change(1.0))
