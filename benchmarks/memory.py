"""(d) Bytes: the most that is alive at once, and what waits between forward and backward."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from lib_trainer.memory.storage_peak import StoragePeak


def measured_memory(
    forward: Callable[[], Tensor], backward: Callable[[Tensor], None], known: Iterable[Tensor]
) -> dict[str, int]:
    """`peak_bytes` of all that `forward` and `backward` make, and `kept_bytes` that forward leaves for backward.

    Args:
        known: tensors from before, which count for neither.
    """
    known = list(known)
    before = {tensor.untyped_storage().data_ptr() for tensor in known}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in before:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    peak = StoragePeak()
    peak.ignore(known)
    with peak:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            y = forward()
        backward(y)
    return {"peak_bytes": peak.peak, "kept_bytes": sum(kept.values())}
