"""torch.compile on a model's blocks, for as long as they are trained on.

What lies between the adapted layers is compiled; the layers themselves, which read the host's weights in whatever form
these have, are left out of the graphs. PyTorch's compiler is imported only where it is asked for: that takes seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lib_trainer.overrides import Forward, overridden_forward

# Blocks share their code, and each is compiled for itself, by size of picture: the compiler's own limit of 8 would
# leave all further ones uncompiled, and check in vain at each call.
_MOST_GRAPHS = 4096


def compiler_problem(device: torch.device) -> str:
    """Why torch.compile does not work on this device, a line; "" if it does. Compiles something small to know."""
    x = torch.ones(16, device=device, requires_grad=True)
    try:
        torch.compile(_something_small)(x).sum().backward()
    except Exception as error:  # noqa: BLE001 whatever a compiler lacks ends here: itself, its headers, Triton
        return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    return ""


def _something_small(x: Tensor) -> Tensor:
    return nn.functional.gelu(x) * x


@contextmanager
def compiled(blocks: Sequence[nn.Module]) -> Iterator[None]:
    """Each block's forward is compiled at its first pass with gradients. Without gradients it computes as ever.

    A block that cannot be compiled computes as ever too, and PyTorch says why on the console.
    """
    import torch._dynamo

    limits = {"cache_size_limit": _MOST_GRAPHS, "accumulated_cache_size_limit": _MOST_GRAPHS}
    with torch._dynamo.config.patch(suppress_errors=True, **limits), overridden_forward(blocks, _compiled_forward):
        yield


def _compiled_forward(_block: nn.Module, forward: Forward) -> Forward:
    fast = torch.compile(forward)

    def call(*args: Any, **kwargs: Any) -> Any:
        return (fast if torch.is_grad_enabled() else forward)(*args, **kwargs)

    return call


def left_out(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, which no graph takes in."""
    return torch.compiler.disable(function)
