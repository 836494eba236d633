"""How gradients change the weights: in one step after backward, or layer by layer within backward."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from lib_trainer.errors import UserError
from lib_trainer.training.layer_snapshot import LayerSnapshot
from lib_trainer.training.processes import ALONE, Processes

if TYPE_CHECKING:
    from torch.amp import GradScaler
    from torch.optim import Optimizer

# GradScaler's own defaults.
_BACKOFF, _GROWTH, _GROWTH_STEPS = 0.5, 2.0, 2000


class Diverged(UserError):
    """The loss or a gradient is NaN or Inf; the adapter still holds finite weights."""

    def __init__(self, step: int) -> None:
        super().__init__(
            f"Training diverged at step {step}: the loss is NaN.",
            "Lower the learning rate, or compute in bf16 or fp32.",
        )


class StepMethod(Protocol):
    """When and how the optimizer steps. `backward` is called per micro-batch, `finish` per step."""

    good_steps: int
    """Steps in a row without overflow, where loss scaling is counted here. A resume sets it."""

    def hooked(self) -> Any:
        """A context manager; steps are taken while it is entered."""

    def backward(self, loss: Tensor) -> None:
        """Backward of one micro-batch's share of the step's loss, a scalar with its graph."""

    def finish(self, loss: Tensor, number: int) -> tuple[float, bool]:
        """Ends step `number`, given its loss on the device. Returns the loss, and whether the weights moved.

        Waits for the device once: whether everything is finite must be known before the weights move.

        Raises:
            Diverged: before the weights are spoiled.
        """


class OptimizerStep:
    """All gradients first, then one step. Clips by their common norm.

    Args:
        max_norm: largest gradient norm; infinite for no clipping.
        processes: that share out the step; all have the same sums, and so decide the same.
    """

    def __init__(self, optimizer: Optimizer, scaler: GradScaler, max_norm: float, processes: Processes = ALONE) -> None:
        self._optimizer, self._scaler, self._max_norm, self._processes = optimizer, scaler, max_norm, processes
        self._parameters = [p for group in optimizer.param_groups for p in group["params"]]
        # GradScaler counts for itself.
        self.good_steps = 0

    @contextmanager
    def hooked(self) -> Iterator[None]:
        yield

    def backward(self, loss: Tensor) -> None:
        self._scaler.scale(loss).backward()

    def finish(self, loss: Tensor, number: int) -> tuple[float, bool]:
        scaler = self._scaler
        self._processes.sum_gradients(self._parameters)
        self._processes.sum([loss])
        # The norm limit is meant for unscaled gradients.
        scaler.unscale_(self._optimizer)
        norm = nn.utils.clip_grad_norm_(self._parameters, self._max_norm)
        # One transfer for both, before the optimizer's kernels are queued: reading later would wait for those too.
        value, size = torch.stack([loss, norm.to(loss)]).tolist()
        # Under loss scaling infinite gradients are normal: GradScaler skips the step and lowers its scale.
        if not math.isfinite(value) or not (math.isfinite(size) or scaler.is_enabled()):
            raise Diverged(number)
        scaler.step(self._optimizer)
        scaler.update()
        # To None, not to zero: the memory is free for the next forward.
        self._optimizer.zero_grad(set_to_none=True)
        return value, math.isfinite(size)


class FusedBackwardStep:
    """Each layer steps as soon as backward has its gradients, which are freed before the next layer's.

    Clips layer by layer, as sd-scripts' fused backward pass clips tensor by tensor: the common norm is known only when
    the first gradients are gone. A layer whose gradients are not finite skips the step: its weights and its optimizer
    state stay as they were.

    Args:
        optimizer: with one parameter group a layer. It must treat every parameter on its own; Prodigy does not.
        processes: that share out the step; they sum the gradients of each layer before it steps.
    """

    def __init__(self, optimizer: Optimizer, scaler: GradScaler, max_norm: float, processes: Processes = ALONE) -> None:
        self._optimizer, self._scaler, self._max_norm, self._processes = optimizer, scaler, max_norm, processes
        self._groups: list[dict[str, Any]] = list(optimizer.param_groups)
        self._scale = 1.0
        self.good_steps = 0
        # For each layer that has stepped: whether its gradients overflowed, and what restores its counters then.
        self._stepped: list[tuple[Tensor, Callable[[], None]]] = []

    @contextmanager
    def hooked(self) -> Iterator[None]:
        handles = []
        for number, group in enumerate(self._groups):
            hook = _after_the_last(group["params"], lambda number=number, group=group: self._step(number, group))
            handles += [p.register_post_accumulate_grad_hook(hook) for p in group["params"]]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def backward(self, loss: Tensor) -> None:
        self._scale = self._scaler.get_scale()
        self._scaler.scale(loss).backward()

    def finish(self, loss: Tensor, number: int) -> tuple[float, bool]:
        self._processes.sum([loss])
        value, *overflows = torch.stack([loss, *(overflow.to(loss) for overflow, _ in self._stepped)]).tolist()
        for overflow, (_, restore) in zip(overflows, self._stepped, strict=True):
            if overflow:
                restore()
        self._stepped.clear()
        if not math.isfinite(value) or (any(overflows) and not self._scaler.is_enabled()):
            raise Diverged(number)
        if self._scaler.is_enabled():
            self._rescale(any(overflows))
        return value, True

    def _step(self, number: int, group: dict[str, Any]) -> None:
        gradients = [p.grad for p in group["params"]]
        self._processes.sum_layer(number, gradients)
        if self._scale != 1.0:
            # GradScaler would unscale all parameters at once, which are never there together.
            torch._foreach_div_(gradients, self._scale)
        norm = torch.stack([torch.linalg.vector_norm(gradient) for gradient in gradients]).norm()
        overflow = ~torch.isfinite(norm)
        for gradient in gradients:
            # Masked on the device: an `if` on the CPU would wait for every layer.
            gradient.mul_((self._max_norm / (norm + 1e-6)).clamp(max=1.0)).masked_fill_(overflow, 0.0)
        snapshot = LayerSnapshot(self._optimizer, group)
        # One optimizer that sees one layer at a time, so that all its state is saved for a resume.
        self._optimizer.param_groups = [group]
        try:
            self._optimizer.step()
        finally:
            self._optimizer.param_groups = self._groups
        self._stepped.append((overflow, snapshot.undo_on_device(overflow)))
        # Freed here, within backward: this is what the fused backward pass saves.
        for parameter in group["params"]:
            parameter.grad = None

    def _rescale(self, overflow: bool) -> None:
        """What GradScaler.update does, which needs an `unscale_` of all gradients at once."""
        scale = self._scaler.get_scale()
        self.good_steps = 0 if overflow else self.good_steps + 1
        if overflow:
            scale *= _BACKOFF
        elif self.good_steps % _GROWTH_STEPS == 0:
            scale *= _GROWTH
        self._scaler.update(scale)


def _after_the_last(parameters: Sequence[nn.Parameter], act: Callable[[], None]) -> Callable[[Tensor], None]:
    """A hook for each parameter; acts when the last of them has its gradient."""
    waiting = len(parameters)

    def hook(_parameter: Tensor) -> None:
        nonlocal waiting
        waiting -= 1
        if not waiting:
            waiting = len(parameters)
            act()

    return hook
