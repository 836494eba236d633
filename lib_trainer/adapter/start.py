"""Adapters that begin with the factors of a file."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from lib_trainer.adapter.attach import Adapter, ReadLayer, new_adapter
from lib_trainer.adapter.delta_weight import DELTAS
from lib_trainer.adapter.dora import shaped_for
from lib_trainer.adapter.foreign_keys import names_in_model
from lib_trainer.adapter.io import AdapterFile
from lib_trainer.adapter.keys import NORM
from lib_trainer.adapter.modules import AdapterModule
from lib_trainer.adapter.norms import NormModule
from lib_trainer.config.recipe import AdapterConfig
from lib_trainer.errors import UserError

if TYPE_CHECKING:
    from lib_trainer.models.base import Layer

_DIM_HINT = "Turn on dim_from_weights, or set rank and LoRA type to those of the file."


def factors_for(file: AdapterFile, layers: Sequence[Layer], name: str) -> dict[str, AdapterModule]:
    """The factors of a file by the layer of the model that they act on, in the model's order.

    Args:
        name: of the LoRA, for messages.

    Raises:
        UserError: the file fits none of the layers, or holds tensors of a kind that is not computed here.
    """
    file.require_read(name)
    by_name = {layer.name: layer for layer in layers}
    meant = {here: file.factors[there] for there, here in names_in_model(file.factors, list(by_name)).items()}
    found = {layer.name: _shaped(meant[layer.name], layer) for layer in layers if layer.name in meant}
    if not found or any(module is None for module in found.values()):
        raise UserError(f"{name} does not fit this checkpoint.", "It was trained for another model family.")
    return found


def continued_adapter(
    found: Mapping[str, AdapterModule],
    layers: Sequence[Layer],
    config: AdapterConfig,
    seed: int,
    *,
    dim_from_weights: bool,
    read_weight: ReadLayer | None = None,
) -> tuple[Adapter, int]:
    """An adapter that begins where a file ended, and how many of its layers begin at zero.

    Args:
        found: `factors_for` of the file.
        dim_from_weights: train exactly the file's layers, with their kinds and ranks; else those of the recipe.
        read_weight: as for `new_adapter`.

    Raises:
        UserError: a layer of the file has another kind or rank than in the recipe.
    """
    if dim_from_weights:
        # A text encoder's layers are not among them where its rate is 0.
        modules = {layer.name: found[layer.name] for layer in layers if layer.name in found}
        if not modules:
            raise UserError("The LoRA has none of the layers that are trained.", "Set a rate for its text encoder.")
        return Adapter(modules), 0
    adapter = new_adapter(layers, config, seed, read_weight)
    # Layers that the file lacks begin at zero: a recipe may train more of them than the earlier run did.
    for name, fresh in adapter.layers.items():
        old = found.get(name)
        if old is None:
            continue
        shapes = [{key: value.shape for key, value in module.named_parameters()} for module in (old, fresh)]
        if old.algo != fresh.algo or shapes[0] != shapes[1]:
            raise UserError(f"The LoRA has another type or rank than the recipe (layer {name}).", _DIM_HINT)
        adapter.layers[name] = old
    fresh_count = sum(name not in found for name in adapter.layers)
    return adapter, fresh_count


def config_of(found: Mapping[str, AdapterModule], layers: Sequence[Layer], config: AdapterConfig) -> AdapterConfig:
    """The recipe's adapter with the type, and the ranks and alphas of the first layers, of `factors_for` a file."""
    wide = {layer.name for layer in layers if math.prod(layer.shape[2:]) > 1}
    norms = {name for name, module in found.items() if module.algo == NORM}
    found = {name: module for name, module in found.items() if name not in norms}
    algos = Counter(module.algo for module in found.values()).most_common(1)
    changes: dict[str, Any] = {"algo": algos[0][0] if algos else config.algo, "conv_dim": 0, "train_norm": bool(norms)}
    scales = [module.dora_scale for module in found.values() if module.dora_scale is not None]
    changes |= {"dora_wd": bool(scales), "wd_on_output": any(scale.shape[0] > 1 for scale in scales)}
    for name, module in sorted(found.items(), key=lambda item: item[0] in wide):
        changes.setdefault("conv_alpha" if name in wide else "network_alpha", module.alpha)
        # A LoKr of full factors has no rank; LyCORIS writes the recipe's as its alpha.
        rank = module.rank or max(1, round(module.alpha))
        key = "conv_dim" if name in wide else "network_dim"
        changes[key] = changes.get(key) or rank
    return replace(config, **changes)


def _shaped(module: AdapterModule, layer: Layer) -> AdapterModule | None:
    """The factors with as many dimensions as the layer's weight; None where they do not fit it."""
    if isinstance(module, NormModule) or layer.kind == NORM:
        fits = isinstance(module, NormModule) and layer.shape == (module.out_features,)
        return NormModule({name: tensor.detach() for name, tensor in module.tensors.items()}) if fits else None
    changed = dict(module.tensors)
    kernel = layer.shape[2:]
    for name, tensor in module.tensors.items():
        if module.algo == "locon" and name == "up":
            changed[name] = tensor.flatten(1).reshape(*tensor.shape[:2], *[1] * len(kernel))
        elif (module.algo == "locon" and name == "down" and "mid" not in changed) or name == "w2":
            # 1×1 convolutions and linear layers are one to PEFT.
            if tensor.ndim == 2 and math.prod(kernel) == 1:
                changed[name] = tensor.reshape(*tensor.shape, *kernel)
            elif tensor.ndim == 4 and not kernel and tensor.shape[2:] == (1, 1):
                changed[name] = tensor.flatten(1)
    magnitude = module.dora_scale
    try:
        magnitude = None if magnitude is None else shaped_for(magnitude.detach(), layer.shape)
        shaped = AdapterModule(
            module.algo, {name: tensor.detach() for name, tensor in changed.items()}, module.alpha, magnitude
        )
        empty = {name: torch.empty(tensor.shape, device="meta") for name, tensor in shaped.tensors.items()}
        elements = DELTAS[module.algo](empty).numel()
    except RuntimeError:
        return None
    return shaped if elements == math.prod(layer.shape) and shaped.out_features == layer.shape[0] else None
