"""One layer as it was before its step, to take the step back where its gradients were not finite."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch.optim import Optimizer


class LayerSnapshot:
    """Weights and optimizer state of one parameter group.

    A step with zeroed gradients would still move the layer by its momentum and weight decay, and count. What lies on
    the layer's device is restored there without the CPU knowing whether it was needed; counters on the CPU later.
    """

    def __init__(self, optimizer: Optimizer, group: dict[str, Any]) -> None:
        self._optimizer, self._group = optimizer, group
        self._settings = {name: value for name, value in group.items() if name != "params"}
        self._weights = [parameter.detach().clone() for parameter in group["params"]]
        self._states = [_copied(optimizer.state.get(parameter, {})) for parameter in group["params"]]

    def undo_on_device(self, overflow: Tensor) -> Callable[[], None]:
        """Restores what lies on the device where `overflow` (a bool scalar there) is true.

        Returns:
            What restores the rest, to be called once it is known on the CPU that `overflow` is true.
        """
        rest: list[Callable[[], None]] = []
        # What is returned must not hold `self`: until the step ends that would keep a copy of every layer.
        states, group, settings = self._optimizer.state, self._group, self._settings
        for parameter, weight, before in zip(self._group["params"], self._weights, self._states, strict=True):
            _restore_where(overflow, parameter.data, weight)
            now = states.get(parameter, {})
            if not before:
                # Made by this very step, so it is as if the layer had never stepped.
                rest.append(lambda parameter=parameter: states.pop(parameter, None))
                continue
            for name, value in before.items():
                if isinstance(value, Tensor) and value.device == overflow.device:
                    _restore_where(overflow, now[name], value)
                else:
                    rest.append(lambda now=now, name=name, value=value: now.__setitem__(name, value))
        rest.append(lambda: group.update(settings))

        def restore_the_rest() -> None:
            for restore in rest:
                restore()

        return restore_the_rest


def _copied(state: dict[str, Any]) -> dict[str, Any]:
    # Quantile maps of 8-bit optimizers never change, and are shared by all layers.
    changing = {name: value for name, value in state.items() if not name.startswith("qmap")}
    return {name: value.detach().clone() if isinstance(value, Tensor) else value for name, value in changing.items()}


def _restore_where(overflow: Tensor, now: Tensor, before: Tensor) -> None:
    now.copy_(torch.where(overflow, before, now))
