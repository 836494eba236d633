"""How gradients become weights: all at once after backward, or layer by layer while backward goes on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from lib_trainer.errors import UserError

if TYPE_CHECKING:
    from torch.amp import GradScaler
    from torch.optim import Optimizer

# GradScaler's own defaults.
_BACKOFF, _GROWTH, _GROWTH_STEPS = 0.5, 2.0, 2000


class Diverged(UserError):
    """The loss or a gradient is no number any more; the adapter still holds weights that are."""

    def __init__(self, step: int) -> None:
        super().__init__(
            f"Training broke down at step {step}: the loss is not a number any more.",
            "Lower the learning rate, or compute in bf16 or fp32.",
        )


class Update(Protocol):
    """One way to take optimizer steps. `backward` is called once a pass, `finish` once a step."""

    good_steps: int
    """Steps in a row that loss scaling found no fault with, where that is counted here. A resume sets it."""

    def armed(self) -> Any:
        """A context manager that must be entered while steps are taken."""

    def backward(self, share: Tensor) -> None:
        """Backward of one pass's share of the step's loss (a scalar with its graph)."""

    def finish(self, loss: Tensor, number: int) -> tuple[float, bool]:
        """Ends step `number`, whose loss is a scalar on the device: its value, and whether the weights moved.

        The device is waited for once, here, since only what is a number may move the weights.

        Raises:
            Diverged: before the weights are spoiled.
        """


class OptimizerStep:
    """All gradients first, then one step. They are clipped by their common norm.

    Args:
        max_norm: largest gradient norm; infinite for none.
    """

    def __init__(self, optimizer: Optimizer, scaler: GradScaler, max_norm: float) -> None:
        self._optimizer, self._scaler, self._max_norm = optimizer, scaler, max_norm
        self._parameters = [p for group in optimizer.param_groups for p in group["params"]]
        # The scaler counts for itself.
        self.good_steps = 0

    @contextmanager
    def armed(self) -> Iterator[None]:
        yield

    def backward(self, share: Tensor) -> None:
        self._scaler.scale(share).backward()

    def finish(self, loss: Tensor, number: int) -> tuple[float, bool]:
        scaler = self._scaler
        scaler.unscale_(self._optimizer)
        norm = nn.utils.clip_grad_norm_(self._parameters, self._max_norm)
        # Read before the optimizer's work is handed to the device, so that nobody waits for that.
        value, size = torch.stack([loss, norm.to(loss)]).tolist()
        # Loss scaling meets infinite gradients by design: it skips the step and scales less.
        if not math.isfinite(value) or not (math.isfinite(size) or scaler.is_enabled()):
            raise Diverged(number)
        scaler.step(self._optimizer)
        scaler.update()
        self._optimizer.zero_grad(set_to_none=True)
        return value, math.isfinite(size)


class FusedBackwardStep:
    """Each layer takes its step as soon as backward has its gradients, and they are freed before the next layer's.

    Gradients are clipped layer by layer, as sd-scripts' fused backward pass clips tensor by tensor: their common norm
    is known only when the first of them are gone. A layer whose gradients are not finite sits the step out.

    Args:
        optimizer: with one parameter group a layer. It must treat every parameter on its own, which Prodigy does not.
    """

    def __init__(self, optimizer: Optimizer, scaler: GradScaler, max_norm: float) -> None:
        self._optimizer, self._scaler, self._max_norm = optimizer, scaler, max_norm
        self._groups: list[dict[str, Any]] = list(optimizer.param_groups)
        self._scale = 1.0
        self.good_steps = 0
        self._broken: list[Tensor] = []

    @contextmanager
    def armed(self) -> Iterator[None]:
        handles = []
        for group in self._groups:
            hook = _when_all_have_gradients(group["params"], lambda group=group: self._step(group))
            handles += [p.register_post_accumulate_grad_hook(hook) for p in group["params"]]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def backward(self, share: Tensor) -> None:
        self._scale = self._scaler.get_scale()
        self._scaler.scale(share).backward()

    def finish(self, loss: Tensor, number: int) -> tuple[float, bool]:
        value, *flags = torch.stack([loss, *(broken.to(loss) for broken in self._broken)]).tolist()
        self._broken.clear()
        if not math.isfinite(value) or (any(flags) and not self._scaler.is_enabled()):
            raise Diverged(number)
        if self._scaler.is_enabled():
            self._rescale(any(flags))
        return value, True

    def _step(self, group: dict[str, Any]) -> None:
        gradients = [p.grad for p in group["params"]]
        if self._scale != 1.0:
            torch._foreach_div_(gradients, self._scale)
        norm = torch.stack([torch.linalg.vector_norm(gradient) for gradient in gradients]).norm()
        broken = ~torch.isfinite(norm)
        self._broken.append(broken)
        for gradient in gradients:
            # Decided on the device: asking the CPU would hold up every layer.
            gradient.mul_((self._max_norm / (norm + 1e-6)).clamp(max=1.0)).masked_fill_(broken, 0.0)
        # The optimizer is the same all along, so that its state is one; it just sees one layer.
        self._optimizer.param_groups = [group]
        try:
            self._optimizer.step()
        finally:
            self._optimizer.param_groups = self._groups
        for parameter in group["params"]:
            parameter.grad = None

    def _rescale(self, broken: bool) -> None:
        scale = self._scaler.get_scale()
        self.good_steps = 0 if broken else self.good_steps + 1
        if broken:
            scale *= _BACKOFF
        elif self.good_steps % _GROWTH_STEPS == 0:
            scale *= _GROWTH
        self._scaler.update(scale)


def _when_all_have_gradients(parameters: Sequence[nn.Parameter], act: Callable[[], None]) -> Callable[[Tensor], None]:
    """A hook for each of the parameters that acts when the last of them has its gradient."""
    waiting = len(parameters)

    def seen(_parameter: Tensor) -> None:
        nonlocal waiting
        waiting -= 1
        if not waiting:
            waiting = len(parameters)
            act()

    return seen
