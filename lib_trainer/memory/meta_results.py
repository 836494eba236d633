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
    written = _written(function)
    if written is None and not _makes_new_tensors(function):
        return function(*args, **kwargs)
    try:
        given = _described(args), _described(tuple(kwargs.items()))
        made = _shapes_made(function, *given) if written is None else _keeps_shape(function, *given)
    except _NotPlain:
        return function(*args, **kwargs)
    if not made:
        return function(*args, **kwargs)
    if written is not None:
        # Without contents nothing else comes of it, and PyTorch computes most of these by several operations.
        return args[written] if isinstance(written, int) else kwargs[written]
    with torch._C.DisableTorchFunction():
        return _restored(made)


@lru_cache(maxsize=2**10)
def _makes_new_tensors(function: Any) -> bool:
    schema = function._schema
    return bool(schema.returns) and not any(value.alias_info for value in (*schema.arguments, *schema.returns))


@lru_cache(maxsize=2**10)
def _written(function: Any) -> int | str | None:
    """Position or name of the one argument that an operator in place writes and returns; None for all others."""
    schema = function._schema
    aliased = [(place, value) for place, value in enumerate(schema.arguments) if value.alias_info]
    if len(schema.returns) != 1 or not schema.returns[0].alias_info or len(aliased) != 1:
        return None
    ((place, argument),) = aliased
    if not (argument.alias_info.is_write and schema.returns[0].alias_info.is_write):
        return None
    return argument.name if argument.kwarg_only else place


@lru_cache(maxsize=2**14)
def _keeps_shape(function: Any, args: Any, kwargs: Any) -> bool:
    """Whether an operator in place leaves what it writes to the shape that it had."""
    args, kwargs = _restored(args), dict(_restored(kwargs))
    written = _written(function)
    tensor = args[written] if isinstance(written, int) else kwargs[written]
    before = _described(tensor), tensor.untyped_storage().nbytes()
    function(*args, **kwargs)
    return (_described(tensor), tensor.untyped_storage().nbytes()) == before


@lru_cache(maxsize=2**14)
def _shapes_made(function: Any, args: Any, kwargs: Any) -> Any:
    """The result, described; None where it shares the memory of an argument."""
    args, kwargs = _restored(args), dict(_restored(kwargs))
    result = function(*args, **kwargs)
    made = _described(result)
    given = {tensor.untyped_storage()._cdata for tensor in _tensors((args, tuple(kwargs.values())))}
    for tensor, copy in zip(_tensors(result), _tensors(_restored(made)), strict=True):
        storage = tensor.untyped_storage()
        if storage._cdata in given or storage.nbytes() != copy.untyped_storage().nbytes():
            return None
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
