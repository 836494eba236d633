"""Adapted layers as each implementation makes them. Runs in that implementation's own process."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any
from unittest.mock import MagicMock

import torch
from torch import Tensor, nn

from lib_trainer.adapter.fresh import new_module
from lib_trainer.adapter.kernels.autograd import LayerOp, apply_frozen
from lib_trainer.adapter.keys import FILE_KEYS
from lib_trainer.config.recipe import AdapterConfig

# The module that replaces the layer, and its trained parameters by our names of the factors.
Made = tuple[nn.Module, dict[str, nn.Parameter]]


def plain_layer(operation: LayerOp) -> nn.Module:
    """The torch layer that computes `operation`, frozen, with weights of the usual size."""
    out, inner, *kernel = operation.shape
    if kernel:
        settings = (operation.stride, operation.padding, operation.dilation, operation.groups)
        layer: nn.Module = nn.Conv2d(inner * operation.groups, out, tuple(kernel), *settings)
    else:
        layer = nn.Linear(inner, out)
    return layer.requires_grad_(False)


def make_frozen(layer: nn.Module, operation: LayerOp, config: AdapterConfig) -> Made:
    """The limit: no adapter."""
    return layer, {}


def make_ours(layer: nn.Module, operation: LayerOp, config: AdapterConfig) -> Made:
    factors = new_module("layer", operation, config)
    if factors is not None:
        factors.to(layer.weight.device)

    def read(like: Tensor) -> tuple[Tensor, Tensor | None]:
        return layer.weight, layer.bias

    if factors is None:
        layer.forward = lambda x: apply_frozen(operation, read, x)
        return layer, {}
    layer.forward = lambda x: factors.apply_to(operation, read, x)
    return layer, dict(factors.named_parameters())


def make_lycoris(layer: nn.Module, operation: LayerOp, config: AdapterConfig) -> Made:
    """The module of the LyCORIS release that is installed, as its network wrapper makes it."""
    from lycoris.modules.loha import LohaModule
    from lycoris.modules.lokr import LokrModule

    rank, alpha = _rank(operation, config)
    options: dict[str, Any] = {"use_tucker": config.use_tucker}
    if config.algo == "lokr":
        options |= {"factor": config.factor, "decompose_both": config.decompose_both}
    kind = {"loha": LohaModule, "lokr": LokrModule}[config.algo]
    return _replacing_forward(layer, kind("layer", layer, 1.0, rank, alpha, **options), config)


def make_peft(layer: nn.Module, operation: LayerOp, config: AdapterConfig) -> Made:
    from peft import LoHaConfig, LoKrConfig, get_peft_model

    rank, alpha = _rank(operation, config)
    options: dict[str, Any] = {"r": rank, "alpha": alpha, "target_modules": ["0"]}
    if config.algo == "loha":
        peft_config: Any = LoHaConfig(**options, use_effective_conv2d=config.use_tucker)
    else:
        peft_config = LoKrConfig(**options, decompose_factor=config.factor, decompose_both=config.decompose_both)
    made = get_peft_model(nn.Sequential(layer), peft_config).train().base_model.model[0]
    return made, {name: parameter for name, parameter in made.named_parameters() if parameter.requires_grad}


def make_sd_scripts(layer: nn.Module, operation: LayerOp, config: AdapterConfig) -> Made:
    """The LoHa or LoKr of sd-scripts itself, of 2026; it has no option to split both of LoKr's factors."""
    with _without_pictures():
        from networks.loha import LoHaModule
        from networks.lokr import LoKrModule

    rank, alpha = _rank(operation, config)
    options: dict[str, Any] = {"use_tucker": config.use_tucker}
    if config.algo == "lokr":
        options |= {"factor": config.factor}
    kind = {"loha": LoHaModule, "lokr": LoKrModule}[config.algo]
    return _replacing_forward(layer, kind("layer", layer, 1.0, rank, alpha, **options), config)


MAKERS: dict[str, Callable[[nn.Module, LayerOp, AdapterConfig], Made]] = {
    "frozen": make_frozen,
    "ours": make_ours,
    "lycoris": make_lycoris,
    "peft": make_peft,
    "sd-scripts": make_sd_scripts,
}


def make_lively(parameters: Mapping[str, nn.Parameter], size: float = 0.05) -> None:
    """No factor is zero, so that no product is trivial; every implementation gets the same values."""
    with torch.no_grad():
        for name, parameter in parameters.items():
            generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * size)


@contextmanager
def _without_pictures() -> Iterator[None]:
    """Stands in for packages that sd-scripts' helpers import for pictures, where they are missing: layers need none."""
    import diffusers  # noqa: F401 - it looks for these packages by their specifications

    missing = [name for name in ("torchvision", "cv2") if not find_spec(name)]
    sys.modules.update({name: MagicMock() for name in missing})
    try:
        yield
    finally:
        for name in missing:
            del sys.modules[name]


def _replacing_forward(layer: nn.Module, module: Any, config: AdapterConfig) -> Made:
    """A module that puts its own forward in the place of the layer's, with its parameters under our names."""
    module.train().to(layer.weight.device).apply_to()
    names = {theirs: ours for ours, theirs in FILE_KEYS[config.algo].items()}
    return layer, {names[name]: parameter for name, parameter in module.named_parameters() if name in names}


def _rank(operation: LayerOp, config: AdapterConfig) -> tuple[int, float]:
    wide = operation.is_conv and operation.shape[2:] != (1, 1)
    return (config.conv_dim, config.conv_alpha) if wide else (config.network_dim, config.network_alpha)
