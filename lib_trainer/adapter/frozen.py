"""LoRAs that act while another is trained: part of the frozen weights, and never changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lib_trainer.adapter.attach import ReadLayer
from lib_trainer.adapter.modules import AdapterModule

if TYPE_CHECKING:
    from lib_trainer.models.base import Layer

Changes = dict[str, AdapterModule]


class FrozenLoras:
    """ΔW of several LoRAs, each at a strength of its own.

    Args:
        loras: (layer name of the model -> its factors, strength) of each LoRA.
    """

    def __init__(self, loras: Sequence[tuple[Changes, float]]) -> None:
        self._changes: dict[str, list[tuple[AdapterModule, float]]] = {}
        for modules, strength in loras:
            for name, module in modules.items():
                self._changes.setdefault(name, []).append((module.requires_grad_(False), strength))

    @property
    def size_bytes(self) -> int:
        """Of all factors."""
        modules = [module for changes in self._changes.values() for module, _ in changes]
        return sum(parameter.nbytes for module in modules for parameter in module.parameters())

    @property
    def change_text(self) -> bool:
        """Whether any of them changes a text encoder."""
        return any(name.startswith("lora_te") for name in self._changes)

    def over(self, read_weight: ReadLayer) -> ReadLayer:
        """Reads W + Σ strength·ΔW, where `read_weight` reads W. The host's own weights stay as they are."""
        if not self._changes:
            return read_weight

        def read(layer: Layer, like: Tensor) -> tuple[Tensor, Tensor | None]:
            weight, bias = read_weight(layer, like)
            changes = self._changes.get(layer.name)
            return self._merged(weight, bias, changes) if changes else (weight, bias)

        return read

    @staticmethod
    @torch.no_grad()
    def _merged(
        weight: Tensor, bias: Tensor | None, changes: Sequence[tuple[AdapterModule, float]]
    ) -> tuple[Tensor, Tensor | None]:
        # Summed in float32 and rounded once, as the WebUIs merge.
        total = weight.float()
        for module, strength in changes:
            if next(module.parameters()).device != weight.device:
                module.to(weight.device)
            total = total + strength * module.change(total)
            if bias is not None and (added := module.bias_change()) is not None:
                bias = (bias.float() + strength * added).to(bias.dtype)
        return total.to(weight.dtype), bias
