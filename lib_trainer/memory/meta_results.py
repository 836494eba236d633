"""What operations make of tensors without contents, remembered: shapes decide it, and PyTorch computes them slowly.

Most operations on the meta device run in Python, for up to a millisecond; a model repeats few of them thousands of
times.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

_META = torch.device("meta")
_SCALARS = {bool, int, float, str, torch.dtype, torch.device, torch.layout, torch.memory_format}


class _Shape(NamedTuple):
    """A tensor without contents, by what its results depend on."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype

    def tensor(self) -> Tensor:
        return torch.empty_strided(self.size, self.stride, dtype=self.dtype, device=_META)


class _Scalar(NamedTuple):
    """A value with its type: 1 and 1.0 are equal, and make tensors of different dtypes."""

    value: Any
    kind: type


class _NotPlain(Exception):
    """This call has another effect than to make new tensors of known shapes."""


def result_of(function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """`function(*args, **kwargs)`, an operator of PyTorch's."""
    if not _makes_new_tensors(function):
        return function(*args, **kwargs)
    try:
        made = _shapes_made(function, _described(args), _described(tuple(kwargs.items())))
    except _NotPlain:
        return function(*args, **kwargs)
    with torch._C.DisableTorchFunction():
        return _restored(made)


@lru_cache(maxsize=2**10)
def _makes_new_tensors(function: Any) -> bool:
    schema = function._schema
    return bool(schema.returns) and not any(value.alias_info for value in (*schema.arguments, *schema.returns))


@lru_cache(maxsize=2**14)
def _shapes_made(function: Any, args: Any, kwargs: Any) -> Any:
    """The result, described. Raises _NotPlain where it shares the memory of an argument."""
    args, kwargs = _restored(args), dict(_restored(kwargs))
    result = function(*args, **kwargs)
    made = _described(result)
    given = {tensor.untyped_storage()._cdata for tensor in _tensors((args, tuple(kwargs.values())))}
    for tensor, copy in zip(_tensors(result), _tensors(_restored(made)), strict=True):
        storage = tensor.untyped_storage()
        if storage._cdata in given or storage.nbytes() != copy.untyped_storage().nbytes():
            raise _NotPlain
        given.add(storage._cdata)
    return made


def _described(value: Any) -> Any:
    """Arguments or results as something hashable."""
    if isinstance(value, Tensor):
        if value.device != _META:
            raise _NotPlain
        return _Shape(tuple(value.shape), value.stride(), value.dtype)
    if isinstance(value, tuple | list):
        return tuple(_described(item) for item in value)
    if value is not None and type(value) not in _SCALARS:
        raise _NotPlain
    return _Scalar(value, type(value))


def _restored(described: Any) -> Any:
    if isinstance(described, _Shape):
        return described.tensor()
    if isinstance(described, _Scalar):
        return described.value
    return tuple(_restored(item) for item in described)


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [tensor for item in value for tensor in _tensors(item)] if isinstance(value, tuple | list) else []
