"""How every WebUI's model is borrowed: prepared for training, and at rest while the WebUI draws with it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from lib_trainer.models.placement import Placement


class WebuiModel(ABC):
    """The part of `host.base.HostModel` that does not depend on how a WebUI holds its model.

    Args:
        loaded: the WebUI's own object of the loaded checkpoint.
        undo: takes the context managers of every change made to it; whoever borrows closes it.
    """

    def __init__(self, loaded: Any, undo: ExitStack) -> None:
        self.loaded = loaded
        self._trained: tuple[Placement, bool] | None = None
        self._changes = undo.enter_context(ExitStack())

    def prepare_training(self, placement: Placement, *, text_encoder: bool) -> None:
        self._changes.close()
        self._trained = (placement, text_encoder)
        self._change(placement, text_encoder)

    @abstractmethod
    def _change(self, placement: Placement, text_encoder: bool) -> None:
        """Makes the model one that can be trained on; `_changes` takes what undoes it."""

    @contextmanager
    def resting(self) -> Iterator[None]:
        """While entered, the model is the WebUI's to draw with; then training goes on where it was.

        An attached adapter stays attached, so a picture drawn meanwhile shows what it has learned.
        """
        self._changes.close()
        try:
            yield
        finally:
            if self._trained:
                self._change(*self._trained)
