"""Layers of every kind that an adapter meets, and the recipes for them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lib_trainer.adapter.fresh import new_module
from lib_trainer.adapter.kernels.autograd import LayerOp
from lib_trainer.adapter.modules import AdapterModule
from lib_trainer.config.recipe import AdapterConfig
from lib_trainer.models.base import Layer

OPERATIONS = {
    "linear": LayerOp((24, 36)),
    "wide linear": LayerOp((96, 32)),
    "1x1": LayerOp((24, 36, 1, 1)),
    "3x3": LayerOp((24, 36, 3, 3), padding=(1, 1)),
    "3x3 strided": LayerOp((32, 24, 3, 3), stride=(2, 2), padding=(1, 1)),
    "3x3 dilated": LayerOp((24, 32, 3, 3), padding=(2, 2), dilation=(2, 2)),
    "3x3 grouped": LayerOp((24, 12, 3, 3), padding=(1, 1), groups=2),
}
RECIPES = {
    "loha": AdapterConfig(algo="loha", network_dim=4, network_alpha=2, conv_dim=3, conv_alpha=1.5),
    "loha tucker": AdapterConfig(algo="loha", network_dim=4, network_alpha=2, conv_dim=3, use_tucker=True),
    "lokr": AdapterConfig(algo="lokr", network_dim=2, network_alpha=1, conv_dim=2, conv_alpha=1, factor=4),
    "lokr tucker": AdapterConfig(algo="lokr", network_dim=2, network_alpha=1, conv_dim=2, factor=4, use_tucker=True),
    "lokr both": AdapterConfig(algo="lokr", network_dim=1, conv_dim=1, factor=4, decompose_both=True),
    "lokr full": AdapterConfig(algo="lokr", network_dim=8, conv_dim=8, factor=-1, full_matrix=True),
    "lokr too large": AdapterConfig(algo="lokr", network_dim=1000, conv_dim=1000, factor=4),
    "locon": AdapterConfig(algo="locon", network_dim=4, network_alpha=2, conv_dim=3, conv_alpha=1),
    "locon tucker": AdapterConfig(algo="locon", network_dim=4, conv_dim=3, conv_alpha=1, use_tucker=True),
}


CASES = [(recipe, operation) for recipe in RECIPES for operation in OPERATIONS]


def lively_factors(recipe: str, operation: LayerOp, seed: int = 0, dtype: torch.dtype = torch.float64) -> AdapterModule:
    """Factors none of which is zero, so that every gradient has something to say."""
    generator = torch.Generator().manual_seed(seed)
    factors = new_module("layer", operation, RECIPES[recipe])
    for parameter in factors.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(dtype) * 0.3
    return factors


def an_input(operation: LayerOp, seed: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    inner = operation.shape[1] * operation.groups
    shape = (2, inner, 6, 6) if operation.is_conv else (2, 5, inner)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def a_weight(operation: LayerOp, seed: int = 2, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(operation.shape, generator=generator, dtype=torch.float64)
    return weight.to(dtype), torch.randn(operation.shape[0], generator=generator, dtype=torch.float64).to(dtype)


def as_module(operation: LayerOp) -> nn.Module:
    """The torch layer that computes `operation`, with random weights."""
    out, inner = operation.shape[:2]
    if not operation.is_conv:
        return nn.Linear(inner, out)
    settings = (operation.stride, operation.padding, operation.dilation, operation.groups)
    return nn.Conv2d(inner * operation.groups, out, operation.shape[2:], *settings)


def as_layer(name: str, module: nn.Module, operation: LayerOp) -> Layer:
    kind = "conv2d" if operation.is_conv else "linear"
    settings = (operation.stride, operation.padding, operation.dilation, operation.groups)
    return Layer(name, module, kind, operation.shape, *settings)


def read_plain(layer: Layer, like: Tensor) -> tuple[Tensor, Tensor | None]:
    bias = layer.module.bias
    return layer.module.weight.detach().to(like), None if bias is None else bias.detach().to(like)
