"""Puts an adapter on a borrowed model's layers and takes it off again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from lib_trainer.adapter.kernels.autograd import LayerOp, frozen
from lib_trainer.adapter.modules import AdapterModule, new_module
from lib_trainer.config.recipe import AdapterConfig
from lib_trainer.errors import UserError
from lib_trainer.utils.patch import Forward, overridden_forward

if TYPE_CHECKING:
    from lib_trainer.models.base import Layer

# Layer, tensor to be like -> its frozen weight and bias; `HostModel.read_weight`.
ReadLayer = Callable[["Layer", Tensor], tuple[Tensor, "Tensor | None"]]


class Adapter(nn.Module):
    """The factors of every adapted layer, by layer name, in file order."""

    def __init__(self, factors: dict[str, AdapterModule]) -> None:
        super().__init__()
        self.layers = nn.ModuleDict(factors)

    def layers_of(self, prefix: str) -> list[list[nn.Parameter]]:
        """Parameters of each layer whose name starts with `prefix`: `lora_unet_` or `lora_te`."""
        return [list(factors.parameters()) for name, factors in self.layers.items() if name.startswith(prefix)]

    def draw_dropout(self, config: AdapterConfig, generator: torch.Generator) -> None:
        """Draws which rows of ΔW (rank dropout) and which layers (module dropout) sit out the next step.

        Drawn once a step and kept in the factors, so that recomputed activations see the same ones.
        """
        for factors in self.layers.values():
            if config.module_dropout:
                factors.silenced = bool(torch.rand((), generator=generator) < config.module_dropout)
            if config.rank_dropout:
                rows = torch.rand(factors.out_features, generator=generator)
                factors.row_mask = (rows >= config.rank_dropout).float()

    def rest(self) -> None:
        """Nothing sits out any more, until dropout is drawn for the next step."""
        for factors in self.layers.values():
            factors.row_mask, factors.silenced = None, False


def layer_op_of(layer: Layer) -> LayerOp:
    if layer.kind == "linear":
        return LayerOp(layer.shape)
    padding = layer.padding
    if not isinstance(padding, tuple):
        raise TypeError(f"{layer.name}: padding {padding!r} is given by name, not in pixels")
    return LayerOp(layer.shape, tuple(layer.stride), tuple(padding), tuple(layer.dilation), layer.groups)


def new_adapter(layers: Sequence[Layer], config: AdapterConfig, seed: int) -> Adapter:
    """A fresh adapter on `layers`, with LyCORIS' start values; it changes nothing yet.

    Raises:
        UserError: when the recipe leaves no layer to train.
        MissingPackage: when lycoris-lora is not installed.
    """
    factors = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for layer in layers:
            made = new_module(layer.name, layer_op_of(layer), config)
            if made is not None:
                factors[layer.name] = made
    if not factors:
        raise UserError("This recipe trains no layer of the model.", "Give it a rank above 0.")
    return Adapter(factors)


@contextmanager
def attached(
    adapter: Adapter, layers: Sequence[Layer], read_weight: ReadLayer, strength: float = 1.0
) -> Iterator[None]:
    """While entered, each adapted layer computes with W + strength·ΔW; then all is as it was.

    Args:
        layers: the model's layers. Those without factors in the adapter compute as ever, but keep no copy of a weight
            that is stored in another form than it is computed with.
        read_weight: `HostModel.read_weight`.
    """
    layer_of = {layer.module: layer for layer in layers}

    def wrap(module: nn.Module, _forward: Forward) -> Forward:
        layer = layer_of[module]
        operation = layer_op_of(layer)

        def read(like: Tensor) -> tuple[Tensor, Tensor | None]:
            return read_weight(layer, like)

        if layer.name not in adapter.layers:
            return lambda x: frozen(operation, read, x)
        factors = adapter.layers[layer.name]
        return lambda x: factors.apply_to(operation, read, x)

    try:
        for factors in adapter.layers.values():
            factors.strength = strength
        with overridden_forward(layer_of, wrap):
            yield
    finally:
        for factors in adapter.layers.values():
            factors.strength, factors.row_mask, factors.silenced = 1.0, None, False
