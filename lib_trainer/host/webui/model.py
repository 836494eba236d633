"""A WebUI's model while it is open: prepared for training, and paused while the WebUI draws with it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from lib_trainer.models.base import Layer
from lib_trainer.models.families import Family
from lib_trainer.models.layers import unet_norms
from lib_trainer.models.offload import Int8Weight, OffloadedWeights
from lib_trainer.models.placement import Placement


class WebuiModel(ABC):
    """The part of `models.base.HostModel` that is the same in every WebUI.

    Args:
        loaded: the WebUI's own object of the loaded checkpoint.
        undo: takes the context managers of every change made to it; closing it restores the WebUI.
    """

    family: Family
    unet: nn.Module

    def __init__(self, loaded: Any, undo: ExitStack) -> None:
        self.loaded = loaded
        self._prepared: tuple[Placement, bool] | None = None
        self._guidance_scale = 1.0
        self._offloaded: OffloadedWeights | None = None
        self._changes = undo.enter_context(ExitStack())

    def prepare_training(self, placement: Placement, *, text_encoder: bool, guidance_scale: float = 1.0) -> None:
        self._changes.close()
        self._guidance_scale = guidance_scale
        self._prepared = (placement, text_encoder)
        self._change(placement, text_encoder)

    @abstractmethod
    def _change(self, placement: Placement, text_encoder: bool) -> None:
        """Makes the model trainable; `_changes` takes what undoes it."""

    @contextmanager
    def paused(self) -> Iterator[None]:
        """While entered, the WebUI draws with the model; then training continues where it was.

        An attached adapter stays attached, so a picture drawn meanwhile shows what it has learned.
        """
        # In-place additions, checkpointing and casts are the WebUI's again: its pictures must not depend on ours.
        self._changes.close()
        try:
            yield
        finally:
            if self._prepared:
                self._change(*self._prepared)

    def norm_layers(self) -> list[Layer]:
        return [] if self.family.is_flow else unet_norms(self.unet, self.family)

    def read_int8(self, layer: Layer, like: Tensor) -> tuple[Int8Weight | None, Tensor | None]:
        if self._offloaded is not None and self._offloaded.holds(layer):
            return self._offloaded.read_int8(layer, like)
        return None, None

    def read_weight(self, layer: Layer, like: Tensor) -> tuple[Tensor, Tensor | None]:
        if self._offloaded is not None and self._offloaded.holds(layer):
            return self._offloaded.read(layer, like)
        return self._read_own_weight(layer, like)

    @abstractmethod
    def _read_own_weight(self, layer: Layer, like: Tensor) -> tuple[Tensor, Tensor | None]:
        """As `read_weight`, from the WebUI's own module."""
