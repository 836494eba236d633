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
from lib_trainer.training.loss_scale import LossScale
from lib_trainer.training.processes import ALONE, Processes

if TYPE_CHECKING:
    from torch.optim import Optimizer


class Diverged(UserError):
    """The loss or a gradient is NaN or Inf; the adapter still holds finite weights."""

    def __init__(self, step: int) -> None:
        super().__init__(
            f"Training diverged at step {step}: the loss is NaN.",
            "Lower the learning rate, or compute in bf16 or fp32.",
        )


class StepMethod(Protocol):
    """When and how the optimizer steps. `backward` is called per micro-batch, `finish` per step."""

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

    def __init__(self, optimizer: Optimizer, scale: LossScale, max_norm: float, processes: Processes = ALONE) -> None:
        self._optimizer, self._scale, self._max_norm, self._processes = optimizer, scale, max_norm, processes
        self._parameters = [p for group in optimizer.param_groups for p in group["params"]]

    @contextmanager
    def hooked(self) -> Iterator[None]:
        yield

    def backward(self, loss: Tensor) -> None:
        self._scale.scaled(loss).backward()

    def finish(self, loss: Tensor, number: int) -> tuple[float, bool]:
        self._processes.sum_gradients(self._parameters)
        self._processes.sum([loss])
        if self._scale.enabled:
            # The norm limit is meant for unscaled gradients.
            torch._foreach_div_([p.grad for p in self._parameters if p.grad is not None], self._scale.value)
        norm = nn.utils.clip_grad_norm_(self._parameters, self._max_norm)
        # One transfer for both, before the optimizer's kernels are queued: reading later would wait for those too.
        value, size = torch.stack([loss, norm.to(loss)]).tolist()
        overflow = not math.isfinite(size)
        # Under loss scaling infinite gradients are normal: the step is skipped, and the scale falls.
        if not math.isfinite(value) or (overflow and not self._scale.enabled):
            raise Diverged(number)
        if not overflow:
            self._optimizer.step()
        self._scale.update(overflow=overflow)
        # To None, not to zero: the memory is free for the next forward.
        self._optimizer.zero_grad(set_to_none=True)
        return value, not overflow


class FusedBackwardStep:
    """Each layer steps as soon as backward has its gradients, which are freed before the next layer's.

    Clips layer by layer, as sd-scripts' fused backward pass clips tensor by tensor: the common norm is known only when
    the first gradients are gone. A layer whose gradients are not finite skips the step: its weights and its optimizer
    state stay as they were.

    Args:
        optimizer: with one parameter group a layer. It must treat every parameter on its own; Prodigy does not.
        processes: that share out the step; they sum the gradients of each layer before it steps.
    """

    def __init__(self, optimizer: Optimizer, scale: LossScale, max_norm: float, processes: Processes = ALONE) -> None:
        self._optimizer, self._scale, self._max_norm, self._processes = optimizer, scale, max_norm, processes
        self._groups: list[dict[str, Any]] = list(optimizer.param_groups)
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
        self._scale.scaled(loss).backward()

    def finish(self, loss: Tensor, number: int) -> tuple[float, bool]:
        self._processes.sum([loss])
        value, *overflows = torch.stack([loss, *(overflow.to(loss) for overflow, _ in self._stepped)]).tolist()
        for overflow, (_, restore) in zip(overflows, self._stepped, strict=True):
            if overflow:
                restore()
        self._stepped.clear()
        if not math.isfinite(value) or (any(overflows) and not self._scale.enabled):
            raise Diverged(number)
        self._scale.update(overflow=any(overflows))
        return value, True

    def _step(self, number: int, group: dict[str, Any]) -> None:
        gradients = [p.grad for p in group["params"]]
        self._processes.sum_layer(number, gradients)
        if self._scale.enabled:
            torch._foreach_div_(gradients, self._scale.value)
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
