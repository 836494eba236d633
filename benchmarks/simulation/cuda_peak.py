"""Peak of a GPU's allocator while something runs, with fragmentation and library workspaces."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_flatten

from benchmarks.simulation.cuda_allocator import Block, CachingAllocator
from lib_trainer.memory.storage_peak import StoragePeak

# cuBLAS' default on all GPUs but Hopper. The threads of forward and backward each keep one; a product with a bias takes
# another while it runs.
GEMM_WORKSPACE_BYTES = 8 * 2**20
_GEMM_THREADS = 2


class ReservedPeak(StoragePeak):
    """Follows every storage as `StoragePeak` does, and requests its bytes from the allocator.

    Checked on an H200 whose allocator was limited to 6.9 GiB (SDXL at 1024 px, bf16): LoKr's steps held 6.70 GiB here,
    6.73 there; LoHa, with Hopper's workspaces, ran out of memory in the second step on both.

    Args:
        workspace_bytes: of a matrix product.
    """

    def __init__(self, allocator: CachingAllocator, workspace_bytes: int = GEMM_WORKSPACE_BYTES) -> None:
        super().__init__()
        self.allocator = allocator
        self._workspace_bytes = workspace_bytes
        self._blocks: dict[int, Block] = {}
        self._kept: list[Block] = []

    def leave_out(self, tensors: Iterable[Tensor]) -> None:
        tensors = list(tensors)
        super().leave_out(tensors)
        for tensor in tensors:
            self._release(tensor.untyped_storage()._cdata)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = super().__torch_dispatch__(function, types, args, kwargs)
        for size in self._workspaces(str(function), args):
            self.allocator.free(self.allocator.allocate(size))
        return result

    def _workspaces(self, function: str, args: Any) -> list[int]:
        if "convolution" in function:
            # cuDNN copies inputs and output to channels-last.
            size = sum(leaf.numel() * leaf.element_size() for leaf in tree_flatten(args)[0] if isinstance(leaf, Tensor))
            return [size if "backward" in function else size * 3 // 2]
        if "attention" in function and "backward" in function:
            # Flash attention accumulates the gradient of the queries in float32.
            return [args[0].numel() * 4]
        if "mm" in function:
            while len(self._kept) < _GEMM_THREADS:
                self._kept.append(self.allocator.allocate(self._workspace_bytes))
            return [self._workspace_bytes] if "addmm" in function else []
        return []

    def _add(self, tensor: Tensor, *, rounded: bool) -> None:
        storage = tensor.untyped_storage()
        known = storage._cdata in self._alive
        super()._add(tensor, rounded=rounded)
        if rounded and not known and storage.nbytes():
            self._blocks[storage._cdata] = self.allocator.allocate(storage.nbytes())

    def _drop(self, key: int) -> None:
        super()._drop(key)
        self._release(key)

    def _release(self, key: int) -> None:
        block = self._blocks.pop(key, None)
        if block is not None:
            self.allocator.free(block)
