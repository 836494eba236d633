"""Replaces methods of single objects for a while, and puts back exactly what was there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

Forward = Callable[..., Any]
_ABSENT = object()


@contextmanager
def overridden_forward(modules: Iterable[nn.Module], wrap: Callable[[nn.Module, Forward], Forward]) -> Iterator[None]:
    """Puts `wrap(module, module.forward)` on each module; what the instance had before comes back on exit."""
    saved = [(module, module.__dict__.get("forward", _ABSENT)) for module in modules]
    try:
        for module, _ in saved:
            module.forward = wrap(module, module.forward)
        yield
    finally:
        for module, own in saved:
            if own is not _ABSENT:
                module.forward = own
            elif "forward" in module.__dict__:
                del module.forward


@contextmanager
def attributes(objects: Iterable[Any], **values: Any) -> Iterator[None]:
    """Sets attributes on the objects that already have them; each one's own values, or none, come back on exit."""
    with ExitStack() as undo:
        for item in objects:
            for name in (name for name in values if hasattr(item, name)):
                own = vars(item).get(name, _ABSENT)
                setattr(item, name, values[name])
                # After it was set: one that refuses has nothing to restore, those before it have.
                undo.callback(*((delattr, item, name) if own is _ABSENT else (setattr, item, name, own)))
        yield
