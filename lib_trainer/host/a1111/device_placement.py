"""Which parts of A1111's model lie on the device: decided by us while the model is open, then restored."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lib_trainer.utils.patch import attributes

_CPU = torch.device("cpu")
_MOVER = "modules.lowvram"


class DevicePlacement:
    """The big parts of one model; only those that are needed now lie on the device.

    Args:
        parts: UNet, text encoders, VAE.
        device: where they compute.
    """

    def __init__(self, parts: Iterable[nn.Module], device: torch.device) -> None:
        self._parts = list(parts)
        self._device = device

    @contextmanager
    def taken_over(self, model: nn.Module) -> Iterator[None]:
        """While entered, nobody else moves parts; on exit each tensor is back on its device."""
        from modules import lowvram

        with ExitStack() as stack:
            if model.lowvram:
                # With --medvram, hooks bring one part at a time and note which; afterwards none must be noted as there.
                lowvram.send_everything_to_cpu()
                stack.callback(setattr, lowvram, "module_in_gpu", None)
                stack.enter_context(_without_move_hooks(model))
            before = [(slots, name, tensor, tensor.device) for slots, name, tensor in _tensors(self._parts)]
            stack.callback(_put_back, before)
            yield

    def move(self, wanted: Iterable[nn.Module]) -> None:
        """The wanted parts to the device, all others off it."""
        from modules import devices

        keep = list(wanted)
        # Off first: on a small card two parts may not fit side by side.
        for part in self._parts:
            if not any(part is other for other in keep):
                part.to(_CPU)
        devices.torch_gc()
        for part in keep:
            part.to(self._device)


@contextmanager
def _without_move_hooks(model: nn.Module) -> Iterator[None]:
    """`--medvram` and `--lowvram` move parts in forward hooks; backward would find its weights gone."""
    with ExitStack() as stack:
        for module in model.modules():
            hooks = module._forward_pre_hooks
            others = OrderedDict(
                (key, hook) for key, hook in hooks.items() if getattr(hook, "__module__", "") != _MOVER
            )
            if len(others) < len(hooks):
                stack.enter_context(attributes([module], _forward_pre_hooks=others))
        yield


def _tensors(parts: Iterable[nn.Module]) -> Iterator[tuple[dict[str, Any], str, Tensor]]:
    for part in parts:
        for module in part.modules():
            for slots in (module._parameters, module._buffers):
                yield from ((slots, name, tensor) for name, tensor in slots.items() if tensor is not None)


def _put_back(before: Iterable[tuple[dict[str, Any], str, Tensor, torch.device]]) -> None:
    for slots, name, tensor, device in before:
        if slots[name].device != device:
            moved = slots[name].data.to(device)
            # The parameter stays the same object, as with `Module.to`: others may hold it.
            if isinstance(tensor, nn.Parameter):
                tensor.data = moved
            else:
                slots[name] = moved
