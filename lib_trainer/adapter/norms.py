"""Trained norms: what is added to the weight and the bias of a group or layer norm.

Source: LyCORIS' `NormModule` (`train_norm`), with its names in files, `w_norm` and `b_norm`, and its start at zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from lib_trainer.adapter.kernels.autograd import ReadWeight
from lib_trainer.adapter.keys import NORM
from lib_trainer.adapter.modules import AdapterModule

if TYPE_CHECKING:
    from torch import nn

    from lib_trainer.models.base import Layer


class NormModule(AdapterModule):
    """Δw, and Δb where the file has it, of one norm: (n,), float32. It has neither rank nor alpha.

    Rank dropout leaves out channels, module dropout the whole norm.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__(NORM, tensors, 1.0)

    @property
    def out_features(self) -> int:
        return self.w.shape[0]

    def delta(self, shape: tuple[int, ...] | None = None) -> Tensor:
        return self.w if shape is None else self.w.reshape(tuple(shape))

    def bias_change(self) -> Tensor | None:
        return self.b if "b" in self.names else None

    def limit_norm(self, most: float) -> None:
        """Nothing: LyCORIS limits no norms either."""

    @property
    def zero_factors(self) -> list[nn.Parameter]:
        """None: LoRA+ is about pairs of factors."""
        return []

    def changed(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Weight and bias with strength·Δ, summed in float32, in the dtype of the weight."""
        kept = self.strength if self.row_mask is None else self.strength * self.row_mask.to(self.w)
        added = self.bias_change()
        if bias is not None and added is not None:
            bias = (bias.to(added.dtype) + kept * added).to(weight.dtype)
        return (weight.to(self.w.dtype) + kept * self.w).to(weight.dtype), bias


def new_norm(layer: Layer) -> NormModule:
    """Zeros for the weight and the bias of a norm."""
    return NormModule({"w": torch.zeros(layer.shape), "b": torch.zeros(layer.shape)})


def summed(changes: Sequence[tuple[NormModule, float]]) -> NormModule:
    """Σ strength·Δ of one norm; a bias that a file lacks counts as zero."""
    names = dict.fromkeys(name for module, _ in changes for name in module.names)
    with torch.no_grad():
        parts = {
            name: sum(strength * module.tensors[name] for module, strength in changes if name in module.names)
            for name in names
        }
    return NormModule(parts)


def apply_norm(layer: Layer, module: NormModule | None, read: ReadWeight, x: Tensor) -> Tensor:
    """The norm of x (B, n, H, W) or (…, n) with what `read` reads, and with the module's changes."""
    weight, bias = read(x)
    if module is not None and not module.dropped:
        weight, bias = module.changed(weight, bias)
    if layer.groups:
        return F.group_norm(x, layer.groups, weight, bias, layer.eps)
    return F.layer_norm(x, layer.shape, weight, bias, layer.eps)
