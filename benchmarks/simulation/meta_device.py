"""Tensors that have shapes but no contents, so that a model of any size can be stepped through."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._device import DeviceContext

META = torch.device("meta")
_attention = functional.scaled_dot_product_attention


class MetaDevice(DeviceContext):
    """While entered, new tensors lie on the meta device, and attention takes the memory of a fused kernel.

    On the meta device PyTorch itself would take attention's unfused way, which keeps the products of all tokens. What a
    program moves to the CPU stays: there are no contents to copy.
    """

    def __init__(self) -> None:
        super().__init__(META)
        self._entered = 0

    def __enter__(self) -> MetaDevice:
        # By its name: checkpointed layers are computed again within a plain DeviceContext, and before PyTorch 2.14
        # within this one, entered once more.
        self._entered += 1
        functional.scaled_dot_product_attention = _fused_attention
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._entered -= 1
        if not self._entered:
            functional.scaled_dot_product_attention = _attention

    def __torch_function__(self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function is Tensor.cpu:
            return args[0]
        if function is Tensor.to:
            args = [_off_cpu(value) for value in args]
            kwargs = {name: _off_cpu(value) for name, value in kwargs.items()}
        return super().__torch_function__(function, types, args, kwargs)


def _fused_attention(*args: Any, **kwargs: Any) -> Tensor:
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(*args, **kwargs)[0]


def _off_cpu(value: Any) -> Any:
    """An argument of `Tensor.to`, with another device than a CPU."""
    return META if isinstance(value, str | torch.device) and torch.device(value).type == "cpu" else value
