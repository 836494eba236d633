"""Attaches an adapter to a model's layers and detaches it again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from lib_trainer.adapter.embedding import TrainedEmbedding
from lib_trainer.adapter.fresh import new_module
from lib_trainer.adapter.kernels.autograd import LayerOp, apply_frozen
from lib_trainer.adapter.kernels.choices import KernelChoices
from lib_trainer.adapter.keys import NORM
from lib_trainer.adapter.layer_rules import trains_norm
from lib_trainer.adapter.modules import AdapterModule
from lib_trainer.adapter.norms import apply_norm, new_norm
from lib_trainer.config.recipe import AdapterConfig
from lib_trainer.errors import UserError
from lib_trainer.models.device import to_device
from lib_trainer.models.layer_names import UNET_PREFIX
from lib_trainer.utils.patch import Forward, overridden_forward

if TYPE_CHECKING:
    from lib_trainer.models.base import Layer
    from lib_trainer.models.offload import Int8Weight

_TIMESTEPS = 1000
# Layer, tensor to be like -> its frozen weight and bias; `HostModel.read_weight`.
ReadLayer = Callable[["Layer", Tensor], tuple[Tensor, "Tensor | None"]]
# The same with the weight in 8 bits, or without one; `HostModel.read_int8`.
ReadLayerInt8 = Callable[["Layer", Tensor], tuple["Int8Weight | None", "Tensor | None"]]


class Adapter(nn.Module):
    """The adapter module of every adapted layer, by layer name, in file order.

    Attributes:
        embedding: that is trained beside them; None without one.
        choices: which kernel strategy computes each kind of layer; set before it is attached.
    """

    def __init__(self, modules: dict[str, AdapterModule], embedding: TrainedEmbedding | None = None) -> None:
        super().__init__()
        self.layers = nn.ModuleDict(modules)
        self.embedding = embedding
        self.choices = KernelChoices()

    def draw_dropout(self, config: AdapterConfig, generator: torch.Generator) -> None:
        """Draws which rows of ΔW (rank dropout) and which layers (module dropout) the next micro-batch skips.

        Drawn ahead and kept in the modules: gradient checkpointing runs a layer twice, which must drop the same rows.
        """
        modules = list(self.layers.values())
        rows = []
        for module in modules:
            if config.module_dropout:
                module.dropped = bool(torch.rand((), generator=generator) < config.module_dropout)
            if config.rank_dropout:
                rows.append(torch.rand(module.out_features, generator=generator))
        if rows:
            # One transfer for all layers. Each would wait for the GPU by itself, and again in the recomputation.
            kept = to_device(torch.cat(rows) >= config.rank_dropout, next(self.parameters()).device).float()
            for module, mask in zip(modules, kept.split([len(part) for part in rows]), strict=True):
                # As LyCORIS: by the share that was drawn, not the one that was asked for.
                module.row_mask = mask / mask.mean().clamp(min=1e-6) if config.rank_dropout_scale else mask
        if config.network_dropout:
            for module in modules:
                seed = int(torch.randint(2**62, (), generator=generator))
                module.dropout = (config.network_dropout, seed) if module.algo == "locon" else None

    def limit_norms(self, most: float) -> None:
        """Shrinks each layer's ΔW to at most this norm."""
        for module in self.layers.values():
            module.limit_norm(most)

    def clear_dropout(self) -> None:
        """Every row and layer acts again, until `draw_dropout`."""
        for module in self.layers.values():
            module.row_mask, module.dropped, module.dropout, module.rank_mask = None, False, None, None

    @contextmanager
    def scaled(self, factor: float) -> Iterator[None]:
        """While entered, ΔW acts `factor` times as strongly, with its dropout."""
        before = [(module, module.strength) for module in self.layers.values()] if factor != 1.0 else []
        for module, strength in before:
            module.strength = strength * factor
        try:
            yield
        finally:
            for module, strength in before:
                module.strength = strength

    @contextmanager
    def masked_ranks(self, timesteps: Tensor, config: AdapterConfig) -> Iterator[None]:
        """T-LoRA: while entered, the noisier a picture, the fewer ranks of the UNet's LoCon layers act on it.

        Args:
            timesteps: (B,), 0…1000, on the CPU.

        Source: Soboleva et al., "T-LoRA: Single Image Diffusion Model Customization Without Overfitting" (2025); the
        formula is that of LyCORIS' `compute_timestep_mask`.
        """
        named = self.layers.items() if config.tlora_min_rank else ()
        modules = [module for name, module in named if module.algo == "locon" and name.startswith(UNET_PREFIX)]
        shares = ((_TIMESTEPS - timesteps.double()) / _TIMESTEPS).clamp(0, 1) ** config.tlora_alpha
        # One mask a rank serves all layers of that rank.
        masks: dict[int, Tensor] = {}
        for module in modules:
            if module.rank not in masks:
                least = min(config.tlora_min_rank, module.rank)
                counts = (shares * (module.rank - least)).floor() + least
                masks[module.rank] = to_device(torch.arange(module.rank) < counts[:, None], module.up.device).float()
            module.rank_mask = masks[module.rank]
        try:
            yield
        finally:
            for module in modules:
                module.rank_mask = None

    @contextmanager
    def at(self, strength: float) -> Iterator[None]:
        """While entered, ΔW acts at this strength, without dropout; 0 gives the base. Restores both on exit."""
        names = ("strength", "row_mask", "dropped", "dropout", "rank_mask")
        before = [(module, [getattr(module, name) for name in names]) for module in self.layers.values()]
        try:
            self.clear_dropout()
            for module in self.layers.values():
                module.strength = strength
                # The base itself, without the work of a ΔW that counts nothing.
                module.dropped = strength == 0
            yield
        finally:
            for module, values in before:
                for name, value in zip(names, values, strict=True):
                    setattr(module, name, value)


def layer_op_of(layer: Layer) -> LayerOp:
    """What the layer computes. Raises TypeError for padding by name, which no diffusion model uses."""
    if layer.kind == "linear":
        return LayerOp(layer.shape)
    padding = layer.padding
    if not isinstance(padding, tuple):
        raise TypeError(f"{layer.name}: padding {padding!r} is given by name, not in pixels")
    return LayerOp(layer.shape, tuple(layer.stride), tuple(padding), tuple(layer.dilation), layer.groups)


def new_adapter(
    layers: Sequence[Layer], config: AdapterConfig, seed: int, read_weight: ReadLayer | None = None
) -> Adapter:
    """A fresh adapter for `layers`, initialised as LyCORIS does: ΔW is zero.

    Args:
        read_weight: `HostModel.read_weight`, with the frozen LoRAs: a DoRA begins with the norms of these weights.

    Raises:
        UserError: the recipe adapts no layer.
        MissingPackage: lycoris-lora is not installed.
    """
    modules = {}
    # LyCORIS draws from torch's global state, which training must find untouched.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for layer in layers:
            if layer.kind == NORM:
                if trains_norm(layer.name, config):
                    modules[layer.name] = new_norm(layer)
                continue
            weight = _own_weight(layer, read_weight) if config.dora_wd and read_weight else None
            module = new_module(layer.name, layer_op_of(layer), config, weight)
            if module is not None:
                modules[layer.name] = module
    if not modules:
        raise UserError("This recipe trains no layer of the model.", "Give it a rank above 0.")
    return Adapter(modules)


def _own_weight(layer: Layer, read_weight: ReadLayer) -> Tensor:
    """(out, in[, k, k]), float32, where the layer lies."""
    with torch.no_grad():
        weight, _ = read_weight(layer, torch.empty(0, device=layer.module.weight.device))
    return weight


class _LayerWeight:
    """The frozen weight of one layer, as strategies read it."""

    def __init__(self, layer: Layer, read: ReadLayer, read_int8: ReadLayerInt8 | None) -> None:
        self._layer, self._read = layer, read
        self.int8 = partial(read_int8, layer) if read_int8 else None

    def __call__(self, like: Tensor) -> tuple[Tensor, Tensor | None]:
        return self._read(self._layer, like)


@contextmanager
def attached(
    adapter: Adapter,
    layers: Sequence[Layer],
    read_weight: ReadLayer,
    strength: float = 1.0,
    *,
    read_int8: ReadLayerInt8 | None = None,
) -> Iterator[None]:
    """While entered, each adapted layer computes with W + strength·ΔW; detaches on exit.

    Args:
        layers: the model's layers. Those that the adapter leaves alone are wrapped too: their backward reads the weight
            again instead of keeping a copy, where it is stored in another format than it is computed in.
        read_weight: `HostModel.read_weight`.
        read_int8: `HostModel.read_int8`, for products in 8 bits; None computes none.
    """
    # By module, since hosts may list layers in another order than they run them.
    layer_of = {layer.module: layer for layer in layers}

    def wrap(module: nn.Module, _forward: Forward) -> Forward:
        layer = layer_of[module]
        is_adapted = layer.name in adapter.layers

        read = _LayerWeight(layer, read_weight, read_int8)
        if layer.kind == NORM:
            return partial(apply_norm, layer, adapter.layers[layer.name] if is_adapted else None, read)
        operation = layer_op_of(layer)
        if not is_adapted:
            return lambda x: apply_frozen(operation, read, x)
        adapted = adapter.layers[layer.name]
        return lambda x: adapted.apply_to(operation, read, x)

    try:
        for adapted in adapter.layers.values():
            adapted.strength = strength
            adapted.compute_by(adapter.choices)
        with overridden_forward(layer_of, wrap):
            yield
    finally:
        for adapted in adapter.layers.values():
            adapted.strength = 1.0
        adapter.clear_dropout()
