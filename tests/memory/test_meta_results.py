from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lib_trainer.memory.meta_results import result_of

ATEN = torch.ops.aten


def meta(*size: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(size, dtype=dtype, device="meta")


@pytest.mark.parametrize(
    ("function", "make_args"),
    [
        (ATEN.mul.Tensor, lambda: (meta(4, 1, 3), meta(5, 3, dtype=torch.bfloat16))),
        (ATEN.mul.Tensor, lambda: (meta(2, dtype=torch.int64), 2)),
        (ATEN.mul.Tensor, lambda: (meta(2, dtype=torch.int64), 2.0)),
        (ATEN.silu.default, lambda: (meta(2, 3, 4, 5).to(memory_format=torch.channels_last),)),
        (ATEN.cat.default, lambda: ([meta(2, 3), meta(4, 3)],)),
        (ATEN.native_layer_norm.default, lambda: (meta(2, 3), [3], None, None, 1e-5)),
        (ATEN.split.Tensor, lambda: (meta(6, 3), 2)),
    ],
)
def test_a_remembered_result_is_as_the_operator_makes_it(
    function: torch._ops.OpOverload, make_args: Callable[[], tuple]
) -> None:
    for _ in range(2):
        expected, found = (call(make_args()) for call in (lambda a: function(*a), lambda a: result_of(function, a, {})))
        assert described(found) == described(expected)


def described(result: Tensor | tuple | list) -> list[tuple]:
    tensors = [result] if isinstance(result, Tensor) else result
    return [(t.shape, t.stride(), t.dtype, t.untyped_storage().nbytes()) for t in tensors]


def test_views_share_their_memory_and_each_result_has_its_own() -> None:
    x = meta(4, 3)
    for _ in range(2):
        view = result_of(ATEN.view.default, (x, [12]), {})
        assert view.untyped_storage()._cdata == x.untyped_storage()._cdata
        assert result_of(ATEN.add_.Tensor, (x, 1), {}) is x
        # Its schema names no alias.
        (part,) = result_of(ATEN.unsafe_split.Tensor, (x, 4), {})
        assert part.untyped_storage()._cdata == x.untyped_storage()._cdata
    first, second = (result_of(ATEN.neg.default, (x,), {}) for _ in range(2))
    assert len({t.untyped_storage()._cdata for t in (x, first, second)}) == 3


def test_what_is_written_in_place_is_returned_as_it_is_and_a_new_shape_is_noticed() -> None:
    for _ in range(2):
        x, out, turned = meta(4, 3), meta(4, 3), meta(4, 3)
        assert result_of(ATEN.addmm_.default, (x, meta(4, 2), meta(2, 3)), {}) is x
        assert result_of(ATEN.add.out, (x, x), {"out": out}) is out
        assert result_of(ATEN.t_.default, (turned,), {}).shape == turned.shape == (3, 4)
        assert result_of(ATEN.resize_.default, (x, [5, 3]), {}).shape == x.shape == (5, 3)
    with pytest.raises(RuntimeError):
        result_of(ATEN.add_.Tensor, (meta(4, 3), meta(5, 3)), {})


def test_tensors_with_contents_are_computed() -> None:
    assert result_of(ATEN.add.Tensor, (torch.ones(2), torch.ones(2)), {}).tolist() == [2, 2]
    x = torch.ones(2)
    assert result_of(ATEN.add_.Tensor, (x, 1), {}) is x and x.tolist() == [2, 2]
