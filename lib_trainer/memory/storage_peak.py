"""Peak bytes of tensors while something runs, on any device.

`StoragePeak` follows the birth and the death of every storage, so it measures a step on the meta device, whose tensors
have shapes but no contents, as well as a real one. It counts what a GPU's allocator is asked for; not library
workspaces, the CUDA context and fragmentation.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from lib_trainer.memory.meta_results import result_of

# CUDACachingAllocator rounds every request up to this.
_GRAIN_BYTES = 512


class StoragePeak(TorchDispatchMode):
    """While entered, counts the bytes of the storages that are alive, rounded as the allocator does.

    Attributes:
        current: bytes alive now; storages from before only if passed to `count`.
        peak: the most that was alive at once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.current = 0
        self.peak = 0
        self._alive: dict[int, int] = {}

    def count(self, tensors: Iterable[Tensor]) -> None:
        """Counts tensors from before, such as weights."""
        for tensor in tensors:
            self._add(tensor, rounded=True)

    def ignore(self, tensors: Iterable[Tensor]) -> None:
        """Never counts these tensors, such as weights that are offloaded to the CPU."""
        for tensor in tensors:
            self._add(tensor, rounded=False)

    def leave_out(self, tensors: Iterable[Tensor]) -> None:
        """Stops counting tensors that were counted so far."""
        for tensor in tensors:
            key = tensor.untyped_storage()._cdata
            self.current -= self._alive.get(key, 0)
            # Its death must still be seen, at no bytes.
            self._alive[key] = 0

    def restart(self) -> None:
        """Resets the peak to what is alive now."""
        self.peak = self.current

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = result_of(function, args, kwargs or {})
        for leaf in tree_flatten(result)[0]:
            if isinstance(leaf, Tensor):
                self._add(leaf, rounded=True)
        return result

    def _add(self, tensor: Tensor, *, rounded: bool) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        # A view shares the storage of its base.
        if key in self._alive:
            return
        size = -(-storage.nbytes() // _GRAIN_BYTES) * _GRAIN_BYTES if rounded else 0
        self._alive[key] = size
        self.current += size
        self.peak = max(self.peak, self.current)
        # A storage dies when its last view does, which no dispatch shows.
        weakref.finalize(storage, self._drop, key)

    def _drop(self, key: int) -> None:
        self.current -= self._alive.pop(key)
