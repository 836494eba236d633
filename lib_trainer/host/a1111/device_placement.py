"""Which parts of A1111's model lie on the device: ours to say while it is borrowed, and then as they lay before."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lib_trainer.utils.patch import attributes

CPU = torch.device("cpu")
_MOVER = "modules.lowvram"


class DevicePlacement:
    """The big parts of one model, of which only those that are needed lie on the device.

    Args:
        parts: UNet, text encoders, VAE.
        device: where they are computed with.
    """

    def __init__(self, parts: Iterable[nn.Module], device: torch.device) -> None:
        self._parts = list(parts)
        self._device = device

    @contextmanager
    def ours(self, model: nn.Module) -> Iterator[None]:
        """While entered, nobody else moves parts; on exit each tensor lies where it lay before."""
        from modules import lowvram

        with ExitStack() as stack:
            if model.lowvram:
                # Parts are brought by hooks, one at a time; the hooks believe that none is there now.
                lowvram.send_everything_to_cpu()
                stack.callback(setattr, lowvram, "module_in_gpu", None)
                stack.enter_context(_without_movers(model))
            before = [(slots, name, tensor, tensor.device) for slots, name, tensor in _tensors(self._parts)]
            stack.callback(_put_back, before)
            yield

    def bring(self, wanted: Iterable[nn.Module]) -> None:
        """The wanted parts to the device, all others off it."""
        from modules import devices

        keep = list(wanted)
        for part in self._parts:
            if not any(part is other for other in keep):
                part.to(CPU)
        devices.torch_gc()
        for part in keep:
            part.to(self._device)


@contextmanager
def _without_movers(model: nn.Module) -> Iterator[None]:
    """`--medvram` and `--lowvram` move parts in hooks; autograd would find its weights gone."""
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
            if isinstance(tensor, nn.Parameter):
                tensor.data = moved
            else:
                slots[name] = moved
