from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from lib_trainer.models import trainable
from lib_trainer.models.placement import Placement
from lib_trainer.utils.patch import attributes


def loaded(moved: bool) -> nn.Linear:
    """A layer as a WebUI loads it, under inference mode; `moved` to a device afterwards, outside that mode."""
    with torch.inference_mode():
        layer = nn.Linear(3, 3)
    if moved:
        for parameter in layer.parameters():
            parameter.data = parameter.data.clone()
    return layer


@pytest.mark.parametrize("moved", [False, True])
def test_backward_needs_normal_parameters_and_gets_them(moved: bool) -> None:
    layer, x = loaded(moved), torch.ones(2, 3, requires_grad=True)
    own = dict(layer._parameters)
    with pytest.raises(RuntimeError, match="Inference tensors"):
        layer(x).square().sum().backward()
    with trainable.normal_parameters(layer), trainable.frozen(layer):
        layer(x).square().sum().backward()
        assert all(p.data_ptr() == own[name].data_ptr() for name, p in layer.named_parameters()), "nothing is copied"
        assert not any(p.requires_grad for p in layer.parameters())
    assert x.grad is not None
    assert all(layer._parameters[name] is parameter for name, parameter in own.items())


def test_parameters_of_another_kind_are_left_alone() -> None:
    class Packed(nn.Parameter):
        pass

    layer = nn.Linear(3, 3)
    layer.weight = packed = Packed(torch.zeros(3, 3))
    with trainable.normal_parameters(layer):
        assert layer.weight is packed
        assert layer.bias is not None


def test_frozen_gives_each_parameter_its_own_wish_back() -> None:
    layer = nn.Linear(3, 3)
    layer.bias.requires_grad_(False)
    with trainable.frozen(layer):
        assert not layer.weight.requires_grad
    assert layer.weight.requires_grad and not layer.bias.requires_grad


def test_attributes_come_back_even_when_they_were_the_classes() -> None:
    class Thing:
        shared = 1

    own, inherited, without = Thing(), Thing(), object.__new__(type("Empty", (), {}))
    own.shared = 2
    with pytest.raises(KeyError), attributes([own, inherited, without], shared=3):
        assert (own.shared, inherited.shared, hasattr(without, "shared")) == (3, 3, False)
        raise KeyError
    assert own.shared == 2 and "shared" not in vars(inherited)


def test_inputs_that_are_added_to_afterwards_are_copied_while_gradients_are_on() -> None:
    norm = nn.LayerNorm(4)

    def block(x: torch.Tensor) -> torch.Tensor:
        x = x * 1
        n = norm(x)
        x += n
        return x

    x = torch.randn(2, 4, requires_grad=True)
    with pytest.raises(RuntimeError, match="inplace"):
        block(x).sum().backward()
    with trainable.cloned_inputs([norm]):
        block(x).sum().backward()
    wanted = torch.autograd.grad((x + norm(x)).sum(), x)[0]
    assert torch.allclose(x.grad, wanted)
    assert not norm._forward_pre_hooks


def test_outputs_of_custom_functions_that_are_views_can_be_added_to() -> None:
    class Double(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return (2 * x.flatten()).view(x.shape)

        @staticmethod
        def backward(ctx, grad):
            return 2 * grad

    class Layer(nn.Module):
        def forward(self, x):
            return Double.apply(x)

    layer, x = Layer(), torch.ones(2, 2, requires_grad=True)
    with pytest.raises(RuntimeError, match="view"):
        out = layer(x)
        out += 1
    with trainable.owned_outputs([layer]):
        out = layer(x)
        out += 1
        out.sum().backward()
    assert torch.equal(x.grad, torch.full((2, 2), 2.0))
    assert not layer._forward_hooks


def test_pictures_that_are_drawn_meanwhile_take_no_copies() -> None:
    layer, x = nn.Identity(), torch.ones(2, 3)
    with trainable.owned_outputs([layer]), trainable.cloned_inputs([layer]), torch.no_grad():
        assert layer(x.T).data_ptr() == x.data_ptr()


def test_checkpointing_recomputes_from_the_input_as_it_was() -> None:
    class Block(nn.Module):
        calls = 0

        def forward(self, x, scale=1.0):
            self.calls += 1
            x *= scale
            return x.exp()

    block, other, x = Block(), Block(), torch.randn(5, requires_grad=True)
    with trainable.checkpointed([other, block], Placement(recomputed=frozenset([1]))):
        block(x * 1, scale=2.0).sum().backward()
        other(x * 1, scale=2.0).sum()
        assert (block.calls, other.calls) == (2, 1)
        with torch.no_grad():
            block(torch.ones(5))
        assert block.calls == 3
    assert torch.allclose(x.grad, 2 * (2 * x.detach()).exp())
    assert "forward" not in vars(block)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(4, 6), (2, 4)),
        (nn.Conv2d(4, 6, 3, stride=2, padding=1), (2, 4, 5, 5)),
        (nn.GroupNorm(2, 4), (2, 4, 3, 3)),
        (nn.LayerNorm(4), (2, 3, 4)),
        (nn.LayerNorm(4, elementwise_affine=False), (2, 3, 4)),
    ],
    ids=lambda item: type(item).__name__,
)
def test_a_layer_computes_in_the_numbers_of_its_input(layer: nn.Module, shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    wanted, own = layer(x), type(layer).forward
    half = layer.bfloat16()
    another = copy.deepcopy(half).float()
    with trainable.input_cast([half]):
        found = half(x)
        assert torch.equal(half(input=x), found)
        # Layers of other models, and other extensions that call them by keyword, are not concerned.
        assert another(input=x).dtype == torch.float32 and type(another).forward is own
    assert found.dtype == torch.float32
    # The weights alone were rounded.
    assert torch.allclose(found, wanted, atol=2e-2)
    assert type(half) is type(another) and type(layer).forward is own


def test_an_adapter_put_on_meanwhile_stays() -> None:
    layer = nn.Linear(2, 2)
    with trainable.input_cast([layer]):
        layer.forward = adapted = lambda x: x
    assert layer.forward is adapted


class Stubborn(nn.Linear):
    """Refuses every change that is made to it."""

    def register_forward_pre_hook(self, *_args: object, **_kwargs: object) -> None:
        raise RuntimeError("no")

    register_forward_hook = register_forward_pre_hook

    def __setattr__(self, name: str, value: object) -> None:
        if name in ("__class__", "marked"):
            raise RuntimeError("no")
        super().__setattr__(name, value)


@pytest.mark.parametrize("change", ["cloned_inputs", "owned_outputs", "input_cast"])
def test_a_change_that_fails_half_way_is_undone(change: str) -> None:
    first = nn.Linear(2, 2)
    with pytest.raises(RuntimeError, match="no"), getattr(trainable, change)([first, Stubborn(2, 2)]):
        raise AssertionError("it did not fail")
    assert type(first) is nn.Linear and not first._forward_hooks and not first._forward_pre_hooks


def test_attributes_that_fail_half_way_are_undone() -> None:
    first, second = nn.Linear(2, 2), Stubborn(2, 2)
    first.marked = 1
    object.__setattr__(second, "marked", 1)
    with pytest.raises(RuntimeError, match="no"), attributes([first, second], marked=2):
        raise AssertionError("it did not fail")
    assert first.marked == 1


def test_parameters_that_are_replaced_half_way_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    own = [dict(layer._parameters) for layer in layers]
    views = iter([torch.zeros(1), torch.zeros(1)])
    monkeypatch.setattr(trainable, "_normal_view", lambda tensor: next(views))
    with pytest.raises((StopIteration, RuntimeError)), trainable.normal_parameters(layers):
        raise AssertionError("it did not fail")
    assert all(
        layer._parameters[name] is p for layer, kept in zip(layers, own, strict=True) for name, p in kept.items()
    )
