"""Makes a UNet that a WebUI loaded for drawing trainable, and undoes it exactly.

WebUIs load weights under `torch.inference_mode()`, add in place, and have no gradient checkpointing. Each context
manager here changes one of these while it is entered; they nest.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from lib_trainer.models.placement import Placement
from lib_trainer.utils.patch import overridden_forward

# Flux' blocks take both streams by name.
_STREAMS = ("img", "txt")


@contextmanager
def normal_parameters(module: nn.Module) -> Iterator[None]:
    """Replaces parameters and buffers by ones that autograd can save; they share the storage, nothing is copied.

    Autograd refuses to save inference tensors for backward. It also refuses tensors that were inference tensors until a
    move to another device set `.data`, although those call themselves normal. So all are replaced. The new ones do not
    require gradients; the module's own tensors come back on exit.
    """
    replaced: list[tuple[dict[str, Any], str, Tensor]] = []
    try:
        with torch.inference_mode(False):
            for part in module.modules():
                for slots in (part._parameters, part._buffers):
                    for name, tensor in slots.items():
                        # Subclasses hold quantised weights, whose storage is not a dense tensor's.
                        if type(tensor) in (Tensor, nn.Parameter):
                            replaced.append((slots, name, tensor))
                            slots[name] = _normal_view(tensor)
        yield
    finally:
        for slots, name, tensor in reversed(replaced):
            slots[name] = tensor


def _normal_view(tensor: Tensor) -> Tensor:
    # A view of an inference tensor is one itself; a new tensor set to the same storage is not.
    view = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    view.set_(tensor.untyped_storage(), tensor.storage_offset(), tensor.size(), tensor.stride())
    return nn.Parameter(view, requires_grad=False) if isinstance(tensor, nn.Parameter) else view


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """No parameter of the module requires a gradient; on exit each one's setting is restored."""
    required = [parameter for parameter in module.parameters() if parameter.requires_grad]
    try:
        for parameter in required:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in required:
            parameter.requires_grad_(True)


@contextmanager
def cloned_inputs(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Gives each module a copy of its first input, because the host adds to the original in place afterwards."""
    # Hooks, because they come off one by one and leave `forward` to the adapter.
    with ExitStack() as undo:
        for module in modules:
            undo.callback(module.register_forward_pre_hook(_clone_first).remove)
        yield


def _clone_first(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    first, *rest = inputs
    # Pictures that are drawn meanwhile need no copies.
    return (first.clone() if torch.is_grad_enabled() else first, *rest)


@contextmanager
def owned_outputs(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Copies each module's output where it is a view, because the host adds to it in place.

    Autograd forbids that on a view made inside a custom Function, such as an adapted linear layer.
    """
    with ExitStack() as undo:
        for module in modules:
            undo.callback(module.register_forward_hook(_own_output).remove)
        yield


def _own_output(_module: nn.Module, _inputs: tuple[Any, ...], output: Tensor) -> Tensor:
    return output.clone() if torch.is_grad_enabled() and output._is_view() else output


def added_to_in_place(parts: Sequence[nn.Module]) -> list[nn.Module]:
    """The layers of an LDM UNet whose outputs the Forge family adds to in place."""
    kinds = [(type(part).__name__, part) for part in parts]
    transformers = [part.proj_in for kind, part in kinds if kind == "SpatialTransformer"]
    return transformers + [part for kind, part in kinds if kind == "FeedForward"]


@contextmanager
def input_cast(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Linear layers, convolutions and norms compute in the dtype of their input, whatever they are stored in.

    Each module gets a class of its own kind with another `forward`. Not an attribute of the module: an adapter puts its
    own there, and is attached and detached meanwhile. Nor a patch of its class: every other model of the process and
    every other extension would run it.
    """
    kinds = (nn.Linear, nn.Conv2d, nn.GroupNorm, nn.LayerNorm)
    casting: dict[type, type] = {}
    with ExitStack() as undo:
        for module in modules:
            kind = type(module)
            if isinstance(module, kinds):
                # One class a kind: thousands of modules share a handful of them.
                if kind not in casting:
                    casting[kind] = type(kind.__name__, (kind,), {"forward": _input_cast_forward})
                undo.callback(setattr, module, "__class__", kind)
                module.__class__ = casting[kind]
        yield


def _input_cast_forward(self: Any, input: Tensor) -> Tensor:
    # Named as torch names them: a layer may be called by keyword.
    weight, bias = (None if tensor is None else tensor.to(input.dtype) for tensor in (self.weight, self.bias))
    if isinstance(self, nn.Linear):
        return functional.linear(input, weight, bias)
    if isinstance(self, nn.Conv2d):
        # Keeps the padding mode, which conv2d would not.
        return self._conv_forward(input, weight, bias)
    if isinstance(self, nn.GroupNorm):
        return functional.group_norm(input, self.num_groups, weight, bias, self.eps)
    return functional.layer_norm(input, self.normalized_shape, weight, bias, self.eps)


@contextmanager
def checkpointed(blocks: Sequence[nn.Module], placement: Placement) -> Iterator[None]:
    """Recomputes activations in backward instead of keeping them.

    Args:
        blocks: all that could be recomputed, in the order of forward.
        placement: says which of them are.
    """
    chosen = [block for position, block in enumerate(blocks) if placement.recomputes(position)]
    with overridden_forward(chosen, _checkpointed_forward):
        yield


def _checkpointed_forward(_block: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        # The block adds to its inputs in place; the recomputation needs them as they were.
        first = [args[0].clone()] if args else []
        streams = {name: kwargs[name].clone() for name in _STREAMS if name in kwargs}
        return forward(*first, *args[1:], **{**kwargs, **streams})

    def call(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        # Adapters draw their dropout masks outside the blocks, so there is no random state to save.
        return checkpoint(run, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)

    return call


def release(modules: Iterable[nn.Module]) -> None:
    """Drops the gradients that autograd left behind, and the tensors that only reference cycles still hold."""
    for module in modules:
        for parameter in module.parameters():
            parameter.grad = None
    # Autograd graphs and hooks refer to each other; the memory must be free before the host moves its models.
    gc.collect()
