"""Loss scaling in fp16, decided on the CPU."""

from __future__ import annotations

from typing import Any

from torch import Tensor

# The defaults of torch's GradScaler.
_START, _BACKOFF, _GROWTH, _GROWTH_STEPS = 2.0**16, 0.5, 2.0, 2000
# Beyond it the scale is no number in float32.
_MOST = 2.0**127


class LossScale:
    """A factor of the loss, without which small gradients would vanish in fp16. It halves when gradients overflow.

    torch's GradScaler does the same with its scale on the device, and waits for it; the loop knows whether a step
    overflowed from the one transfer that reads its loss.

    Attributes:
        value: a power of two; 1 where the compute dtype needs none.
        good_steps: in a row without overflow, since the scale changed.

    Source: Micikevicius et al., "Mixed Precision Training" (2018).
    """

    def __init__(self, enabled: bool, value: float = _START) -> None:
        self.enabled, self.value, self.good_steps = enabled, value if enabled else 1.0, 0

    def scaled(self, loss: Tensor) -> Tensor:
        """What backward begins with."""
        return loss * self.value if self.enabled else loss

    def update(self, *, overflow: bool) -> None:
        """After each step."""
        if not self.enabled:
            return
        self.good_steps = 0 if overflow else self.good_steps + 1
        if overflow:
            self.value *= _BACKOFF
        elif self.good_steps == _GROWTH_STEPS:
            self.value, self.good_steps = min(self.value * _GROWTH, _MOST), 0

    def state(self) -> dict[str, Any]:
        """In GradScaler's names, as the first releases wrote it; empty where it is off."""
        return {"scale": self.value, "_growth_tracker": self.good_steps} if self.enabled else {}

    def load(self, state: dict[str, Any], good_steps: int) -> None:
        """Takes what `state` returned.

        Args:
            good_steps: what earlier releases counted beside it, in a fused backward pass.
        """
        if self.enabled and state:
            self.value = float(state["scale"])
            self.good_steps = max(int(state["_growth_tracker"]), good_steps % _GROWTH_STEPS)
