"""bitsandbytes' optimizers with one launch for many parameters, and without waiting for the device after each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

# Gradients are gathered for each launch, which takes so many floats besides; a launch is worth far fewer.
BUCKET_ELEMENTS = 2**22
# bitsandbytes keeps one scale for each block of so many elements: a parameter that begins with a block has the scales
# that it would have alone. Releases before 0.44.1 have larger blocks, which is asked of them.
BLOCK_ELEMENTS = 256
_PER_ELEMENT, _PER_BLOCK = ("state1", "state2"), ("absmax1", "absmax2")


@dataclass(frozen=True)
class _Bucket:
    """Parameters that lie one after the other, each from the beginning of a block, with zeros up to the next.

    Attributes:
        starts: where each begins, and behind them where the last one's zeros end; in elements.
        weights: (n,) of all.
        states: (n,) or (n / block,) of all, by bitsandbytes' names.
        shared: what every parameter has the same of, such as the quantile maps.
        views: of `states`, for each parameter as bitsandbytes would keep them.
        zeros: what fills up each.
    """

    params: list[nn.Parameter]
    starts: list[int]
    block: int
    weights: Tensor
    states: dict[str, Tensor]
    shared: dict[str, Tensor]
    views: list[dict[str, Tensor]]
    zeros: list[Tensor]

    def span(self, first: int, last: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Weights and states of the parameters from `first` to `last`."""
        begin, end = self.starts[first], self.starts[last + 1]
        parts = {name: slice(begin // self.per(name), end // self.per(name)) for name in self.states}
        return self.weights[begin:end], {name: self.states[name][part] for name, part in parts.items()}

    def per(self, name: str) -> int:
        """Elements for each number of a state."""
        return self.block if name in _PER_BLOCK else 1

    def holds(self, index: int, state: dict[str, Any]) -> bool:
        """Whether that parameter and its state still lie here: a resume brings a state of its own."""
        weight = self.weights.data_ptr() + self.starts[index] * self.weights.element_size()
        return state.get("state1") is self.views[index]["state1"] and self.params[index].data_ptr() == weight

    def take(self, index: int, state: dict[str, Any]) -> None:
        """That parameter and its state lie here from now on, with the values that they have."""
        parameter = self.params[index]
        begin = self.starts[index]
        weight = self.weights[begin : begin + parameter.numel()].view_as(parameter)
        if parameter.data_ptr() != weight.data_ptr():
            weight.copy_(parameter)
            parameter.data = weight
        for name, view in self.views[index].items():
            view.copy_(state[name])
            state[name] = view


class FlatStep:
    """Mixed into a class of bitsandbytes, whose kernels it calls through its own `update_step`.

    Parameters of a group and their states lie in flat buffers, each from the beginning of one of bitsandbytes' blocks,
    so that weights and states are those that one launch for each parameter would give. Small ones, whose states
    bitsandbytes keeps in 32 bits, have buffers of their own. `state` holds views by parameter, in bitsandbytes' form.
    """

    def __init__(self, params: Any, **options: Any) -> None:
        super().__init__(params, **options)
        self._buckets: dict[nn.Parameter, list[_Bucket]] = {}

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """Steps every parameter that has a gradient."""
        for index, group in enumerate(self.param_groups):
            first = group["params"][0]
            if first not in self._buckets:
                self._buckets[first] = list(self._made_buckets(group, index))
            for bucket in self._buckets[first]:
                self._adopt(bucket, group, index)
                for begin, end in _runs(bucket.params, self.state):
                    self._launch(bucket, begin, end, group, index)

    def _made_buckets(self, group: dict[str, Any], index: int) -> Iterator[_Bucket]:
        kinds: dict[Any, list[nn.Parameter]] = {}
        for parameter in group["params"]:
            self._begin_state(parameter, group, index)
            kinds.setdefault(_kind_of(self.state[parameter]), []).append(parameter)
        layout = _layout(type(self))
        for part in (part for params in kinds.values() for part in _parts(params)):
            bucket = _bucket_of(part, self.state[part[0]], layout)
            # Before the next is made: what it replaces is free for it.
            self._adopt(bucket, group, index)
            yield bucket

    def _begin_state(self, parameter: nn.Parameter, group: dict[str, Any], index: int) -> None:
        if not self.state.get(parameter):
            self.init_state(group, parameter, index, 0)

    def _adopt(self, bucket: _Bucket, group: dict[str, Any], index: int) -> None:
        for number, parameter in enumerate(bucket.params):
            self._begin_state(parameter, group, index)
            if not bucket.holds(number, self.state[parameter]):
                bucket.take(number, self.state[parameter])

    def _launch(self, bucket: _Bucket, first: int, last: int, group: dict[str, Any], index: int) -> None:
        members = range(first, last + 1)
        weights, states = bucket.span(first, last)
        pieces = [piece for i in members for piece in (bucket.params[i].grad.reshape(-1), bucket.zeros[i])]
        pieces = [piece for piece in pieces if len(piece)]
        weights.grad = torch.cat(pieces) if len(pieces) > 1 else pieces[0]
        counted = self.state[bucket.params[first]]["step"]
        # What bitsandbytes takes for one parameter are all of them.
        self.state[weights] = {**states, **bucket.shared, "step": counted}
        try:
            self.update_step(group, weights, index, 0)
        finally:
            del self.state[weights]
        for i in members:
            self.state[bucket.params[i]]["step"] = counted + 1


class UnwaitingStep:
    """Mixed into a class of bitsandbytes whose states cannot be flat: one launch for each parameter."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """Steps every parameter that has a gradient, and waits once where states lie in paged memory."""
        stepped = None
        for index, group in enumerate(self.param_groups):
            for number, parameter in enumerate(group["params"]):
                if parameter.grad is None:
                    continue
                if not self.state.get(parameter):
                    self.init_state(group, parameter, index, number)
                self.prefetch_state(parameter)
                self.update_step(group, parameter, index, number)
                stepped = parameter
        if self.is_paged and stepped is not None and stepped.is_cuda:
            torch.cuda.synchronize()


@lru_cache
def unwaiting(kind: type[torch.optim.Optimizer]) -> type[torch.optim.Optimizer]:
    """An optimizer of bitsandbytes that does not wait after each parameter; its name and its options stay."""
    return type(kind.__name__, (UnwaitingStep, kind), {"__module__": kind.__module__})


@lru_cache
def flat(kind: type[torch.optim.Optimizer]) -> type[torch.optim.Optimizer]:
    """An optimizer of bitsandbytes with flat buffers; its name and its options stay."""
    return type(kind.__name__, (FlatStep, kind), {"__module__": kind.__module__})


def _runs(params: list[nn.Parameter], states: dict[nn.Parameter, dict[str, Any]]) -> Iterator[tuple[int, int]]:
    """(first, last) of neighbours that have gradients and have stepped as often; each is one launch."""
    first = None
    for index, parameter in enumerate(params):
        if parameter.grad is None:
            first = None
            continue
        first = index if first is None else first
        following = params[index + 1] if index + 1 < len(params) else None
        if following is None or following.grad is None or states[following]["step"] != states[parameter]["step"]:
            yield first, index
            first = None


def _kind_of(state: dict[str, Any]) -> tuple[Any, ...]:
    return tuple((name, value.dtype, value.device) for name, value in state.items() if isinstance(value, Tensor))


def _parts(params: list[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    part: list[nn.Parameter] = []
    elements = 0
    for parameter in params:
        if part and elements + parameter.numel() > BUCKET_ELEMENTS:
            yield part
            part, elements = [], 0
        part.append(parameter)
        elements += parameter.numel()
    yield part


def _bucket_of(params: list[nn.Parameter], like: dict[str, Any], layout: _Layout) -> _Bucket:
    block, starts = layout.block, [0]
    for parameter in params:
        starts.append(starts[-1] + -(-parameter.numel() // block) * block)
    weights = params[0].detach().new_zeros(starts[-1])
    sizes = {name: starts[-1] for name in _PER_ELEMENT if name in like}
    sizes |= {name: starts[-1] // block for name in _PER_BLOCK if name in like}
    states = {name: like[name].new_zeros(size) for name, size in sizes.items()}
    for name in states.keys() & layout.zero.keys():
        if states[name].dtype == torch.uint8:
            # What fills up a block must not be the largest number in it.
            states[name].fill_(layout.zero[name])
    shared = {name: value for name, value in like.items() if isinstance(value, Tensor) and name not in states}
    filler, zeros, views = weights.new_zeros(block), [], []
    for number, parameter in enumerate(params):
        begin, size = starts[number], parameter.numel()
        zeros.append(filler[: starts[number + 1] - begin - size])
        own = {name: states[name][begin : begin + size].view_as(parameter) for name in _PER_ELEMENT if name in states}
        scales = slice(begin // block, starts[number + 1] // block)
        views.append(own | {name: states[name][scales] for name in _PER_BLOCK if name in states})
    return _Bucket(params, starts, block, weights, states, shared, views, zeros)


@dataclass(frozen=True)
class _Layout:
    """How the installed bitsandbytes keeps states in 8 bits.

    Attributes:
        block: elements that share a scale.
        zero: of each state, the code of the number 0.
    """

    block: int
    zero: dict[str, int]


@lru_cache
def _layout(kind: type) -> _Layout:
    asked = nn.Parameter(torch.zeros(2**16))
    other = kind([asked])
    other.init_state(other.param_groups[0], asked, 0, 0)
    state = other.state[asked]
    maps = {"state1": "qmap1", "state2": "qmap2"}
    zero = {name: int(state[codes].abs().argmin()) for name, codes in maps.items() if codes in state}
    return _Layout(asked.numel() // state["absmax1"].numel(), zero)
