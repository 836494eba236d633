"""DoRA: a layer's weight as magnitudes and directions. W' = m · V / ‖V‖ with V = W + ΔW.

The magnitudes m hold one number for each row of W (one output), or for each column (one input); every other axis of
their shape is 1, and ‖V‖ is taken over those axes. Sources: Liu et al., "DoRA: Weight-Decomposed Low-Rank Adaptation"
(2024); LyCORIS' `weight_decompose`, which lets the gradient through ‖V‖, unlike the paper.
"""

from __future__ import annotations

import torch
from torch import Tensor

# The magnitudes' name among a layer's parameters, and behind `{layer}.` in files.
DORA = "dora_scale"


def magnitude_shape(shape: tuple[int, ...], *, on_output: bool) -> tuple[int, ...]:
    """Of a weight (out, in[, k, k]): (out, 1[, 1, 1]), or (1, in[, 1, 1])."""
    return (shape[0] if on_output else 1, 1 if on_output else shape[1], *[1] * (len(shape) - 2))


def magnitudes(weight: Tensor, shape: tuple[int, ...]) -> Tensor:
    """‖weight‖ in that shape, over every axis where it is 1."""
    axes = tuple(axis for axis, size in enumerate(shape) if size == 1)
    return torch.linalg.vector_norm(weight, dim=axes, keepdim=True)


def decomposed(direction: Tensor, magnitude: Tensor) -> Tensor:
    """m · V / ‖V‖, in the shape of V (out, in[, k, k])."""
    return direction * (magnitude / safe(magnitudes(direction, tuple(magnitude.shape))))


def safe(norm: Tensor) -> Tensor:
    """A norm that can be divided by, as LyCORIS and the WebUIs do it."""
    return norm + torch.finfo(norm.dtype).eps


def shaped_for(magnitude: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A file's magnitudes for a weight of this shape. Raises RuntimeError where they fit neither rows nor columns."""
    for on_output in (True, False):
        wanted = magnitude_shape(shape, on_output=on_output)
        # A matrix and a 1×1 convolution are one to other programs; so is a vector and a column.
        if magnitude.shape[:2] == wanted[:2] or (on_output and magnitude.shape == wanted[:1]):
            return magnitude.reshape(wanted)
    raise RuntimeError(f"magnitudes of shape {tuple(magnitude.shape)} do not fit a weight of shape {tuple(shape)}")
