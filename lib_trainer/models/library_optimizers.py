"""Optimizers of the package pytorch-optimizer beyond those that the recipes list: found by the name of their class.

Which of them can be used is asked of each itself, by two steps on the CPU.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from difflib import get_close_matches
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

PACKAGE, MODULE = "pytorch-optimizer", "pytorch_optimizer"
# A vector, a matrix and a kernel, as adapters have them.
_SHAPES = ((7,), (8, 16), (4, 6, 3, 3))
# What a resume state holds besides tensors.
_PLAIN = (bool, int, float, str, type(None))


def is_installed() -> bool:
    return find_spec(MODULE) is not None


@lru_cache(maxsize=1)
def _classes() -> dict[str, str]:
    """Name in small letters -> name, of every optimizer that the installed release has."""
    if not is_installed():
        return {}
    found = vars(importlib.import_module(MODULE)).items()
    return {name.lower(): name for name, item in found if _is_optimizer(item)}


def _is_optimizer(item: Any) -> bool:
    return inspect.isclass(item) and issubclass(item, torch.optim.Optimizer) and item is not torch.optim.Optimizer


def class_name(name: str) -> str | None:
    """The library's own spelling of a name; None where it has no such class."""
    return _classes().get(name.lower())


def near_names(name: str, others: tuple[str, ...]) -> list[str]:
    """Names that look like this one, of the library and of `others`."""
    known = _classes() | {other.lower(): other for other in others}
    return [known[key] for key in get_close_matches(name.lower(), list(known), n=4, cutoff=0.5)]


def wrapper_problem(made: type) -> str:
    """Why an optimizer's class cannot be built over parameters, as the end of a sentence; "" where it can."""
    parameters = inspect.signature(made.__init__).parameters
    if "params" not in parameters or "base_optimizer" in parameters:
        return "wraps another optimizer or a whole model, and cannot be used by itself"
    return ""


def use_problem(build: Callable[[list[nn.Parameter]], torch.optim.Optimizer]) -> str:
    """Why an optimizer cannot be used here, as the end of a sentence; "" where it can.

    Args:
        build: makes it over parameters.
    """
    parameters = [nn.Parameter(torch.linspace(-1, 1, nn.Parameter(torch.empty(s)).numel()).reshape(s)) for s in _SHAPES]
    optimizer = build(parameters)
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        return "needs a closure: it computes the loss several times a step"
    try:
        if hasattr(optimizer, "train"):
            optimizer.train()
        for _ in range(2):
            for parameter in parameters:
                parameter.grad = parameter.detach().clone()
            optimizer.step()
    # Whatever a class raises that wants something else than gradients.
    except Exception as error:  # noqa: BLE001
        if "closure" in str(error):
            return "needs a closure: it computes the loss several times a step"
        if "grad_fn" in str(error):
            return "needs gradients of gradients (create_graph), which are not computed here"
        return f"cannot take a step on an adapter: {error}"
    return _state_problem(optimizer)


def _state_problem(optimizer: torch.optim.Optimizer) -> str:
    """Why its state cannot be saved for a resume; "" where it can."""
    held = [(parameter, key, value) for parameter, state in optimizer.state.items() for key, value in _items(state)]
    held += [(None, key, value) for group in optimizer.param_groups for key, value in group.items() if key != "params"]
    for parameter, key, value in held:
        if isinstance(parameter, str) or not _is_saved(value, tensors=parameter is not None):
            return f"keeps what a resume state cannot hold ({parameter if isinstance(parameter, str) else key})"
    return ""


def _items(state: Any) -> list[tuple[str, Any]]:
    return list(state.items()) if isinstance(state, dict) else [("", state)]


def _is_saved(value: Any, *, tensors: bool) -> bool:
    if isinstance(value, torch.Tensor):
        return tensors
    if isinstance(value, (list, tuple)):
        return all(_is_saved(part, tensors=False) for part in value)
    return isinstance(value, _PLAIN)
