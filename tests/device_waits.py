"""A stand-in for a GPU: tensors of the CPU that count as lying on it, and what would wait for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

from lib_trainer.models import device

GPU = torch.device("cpu", 0)
"""Tensors that are moved here lie on the stand-in, and so does what is computed from them. They call it a CPU."""

_aten = torch.ops.aten
# Their results, or the sizes of their results, are read by the CPU.
_READING = {
    _aten._local_scalar_dense,
    _aten.equal,
    _aten.nonzero,
    _aten.masked_select,
    _aten._unique2,
    _aten.is_nonzero,
}
_READING |= {_aten.unique_dim, _aten.unique_consecutive, _aten.bincount}
_FETCHING = ("cpu", "tolist", "numpy")
_MAKING = ("zeros", "ones", "empty", "full", "arange", "rand", "randn", "randint", "tensor", "as_tensor")


class DeviceWaits(TorchDispatchMode):
    """Counts, in the thread that enters it, what would make the CPU wait for the device.

    Attributes:
        seen: the name of each operation that would wait.
        launches: calls of bitsandbytes' kernels.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.launches: list[str] = []
        # Kept, so that no other tensor gets their addresses.
        self._there: dict[int, Any] = {}
        self._pinned: dict[int, Any] = {}

    def lies_there(self, value: Any) -> bool:
        return isinstance(value, Tensor) and value.untyped_storage()._cdata in self._there

    def is_pinned(self, value: Tensor) -> bool:
        return value.untyped_storage()._cdata in self._pinned

    def note(self, values: Any, where: dict[int, Any] | None = None) -> Any:
        for value in tree_leaves(values):
            if isinstance(value, Tensor):
                (self._there if where is None else where)[value.untyped_storage()._cdata] = value.untyped_storage()
        return values

    def pin(self, value: Tensor) -> Tensor:
        """Its copy in memory that the device reads by itself."""
        return self.note(value.clone(), self._pinned)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = function.overloadpacket
        inputs = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        there = any(map(self.lies_there, inputs))
        if function.namespace == "bitsandbytes":
            self.launches.append(name.__name__)
        if name in _READING and there:
            self.seen.append(str(name))
        if name is _aten.index and there and any(_is_mask(value) for value in tree_leaves(args[1])):
            self.seen.append("index by a mask")
        if name is _aten.copy_ and self.lies_there(args[0]) != self.lies_there(args[1]):
            free = self.is_pinned(args[1]) and (kwargs.get("non_blocking") or args[2:] == (True,))
            self.seen += [] if free else ["copy_"]
        # Writes into what lies there leave it there; what is made of it lies there too.
        answer = function(*args, **kwargs)
        return self.note(answer) if there else answer


def _is_mask(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype in (torch.bool, torch.uint8)


def _fetching(waits: DeviceWaits, name: str) -> Callable[..., Any]:
    """A method of tensors that reaches the CPU without an operation, where the device is a CPU in truth."""
    method = getattr(Tensor, name)

    def fetch(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
        if not waits.lies_there(tensor):
            return method(tensor, *args, **kwargs)
        waits.seen.append(name)
        with _disable_current_modes():
            return method(tensor.detach().clone(), *args, **kwargs)

    return fetch


def _moving(waits: DeviceWaits) -> Callable[..., Tensor]:
    """`Tensor.to`, which moves nothing where the device is a CPU in truth."""
    to, fetch, thread = Tensor.to, _fetching(waits, "to"), threading.get_ident()

    def move(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        where = [value for value in (*args, *kwargs.values()) if isinstance(value, (str, torch.device, Tensor))]
        if "cpu" in where:
            return fetch(tensor, *args, **kwargs)
        there = any(isinstance(place, torch.device) or waits.lies_there(place) for place in where)
        if not there or waits.lies_there(tensor) or threading.get_ident() != thread:
            return to(tensor, *args, **kwargs)
        waits.seen += [] if waits.is_pinned(tensor) and kwargs.get("non_blocking") else ["to"]
        with _disable_current_modes():
            return waits.note(to(tensor.clone(), *args, **kwargs))

    return move


def _making(waits: DeviceWaits, name: str) -> Callable[..., Any]:
    """A function of torch that makes tensors: `zeros(n, device=x.device)` are on the stand-in, called a CPU."""
    function = getattr(torch, name)

    def make(*args: Any, **kwargs: Any) -> Any:
        made = function(*args, **kwargs)
        if not isinstance(kwargs.get("device"), torch.device):
            return made
        waits.seen += ["tensor"] if name in ("tensor", "as_tensor") else []
        return waits.note(made)

    return make


@contextmanager
def counted_waits(monkeypatch: pytest.MonkeyPatch) -> Iterator[DeviceWaits]:
    """While entered, `torch.device("cpu", 0)` is the stand-in, and what waits for it is counted."""
    waits = DeviceWaits()

    def wait(why: str) -> Callable[..., None]:
        return lambda *_: waits.seen.append(why)

    monkeypatch.setattr(device, "_reads_pinned_memory", lambda where: True)
    # Not by the mode: micro-batches are pinned in a thread of their own.
    monkeypatch.setattr(Tensor, "pin_memory", lambda value: waits.pin(value))
    monkeypatch.setattr(torch.cuda, "synchronize", wait("synchronize"))
    bitsandbytes = pytest.importorskip("bitsandbytes.optim.optimizer")
    monkeypatch.setattr(bitsandbytes, "sync_gpu", wait("sync_gpu"))
    for name in _FETCHING:
        monkeypatch.setattr(Tensor, name, _fetching(waits, name))
    monkeypatch.setattr(Tensor, "to", _moving(waits))
    for name in _MAKING:
        monkeypatch.setattr(torch, name, _making(waits, name))
    with waits:
        yield waits
