"""ΔW of LoHa, LoKr and LoCon as pure functions of the factors.

Shapes: `out`, `in` are a layer's sides, `k` its kernel, `r` the rank. Factor names are LyCORIS' without their
algorithm's prefix. Source: Yeh et al., "Navigating Text-To-Image Customization" (LyCORIS, ICLR 2024).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Tensors = Mapping[str, Tensor]


def tucker(core: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """core (r, r, k, k), a (r, out), b (r, in) -> (out, in, k, k)."""
    return torch.einsum("ijkl,ip,jr->prkl", core, a, b)


def loha_delta(f: Tensors) -> Tensor:
    """(w1_a·w1_b) ∘ (w2_a·w2_b): w*_a (out, r), w*_b (r, in·k²) -> (out, in·k²).

    With cores t1, t2 (r, r, k, k) the tucker form: w*_a (r, out), w*_b (r, in) -> (out, in, k, k).
    """
    if "t1" in f:
        return tucker(f["t1"], f["w1_a"], f["w1_b"]) * tucker(f["t2"], f["w2_a"], f["w2_b"])
    return (f["w1_a"] @ f["w1_b"]) * (f["w2_a"] @ f["w2_b"])


def lokr_delta(f: Tensors) -> Tensor:
    """kron(W1, W2): W1 (out_l, in_m), W2 (out_k, in_n[, k, k]) -> (out, in[, k, k]) or (out, in·k²)."""
    first, second = lokr_first(f), lokr_second(f)
    # torch.kron needs as many dimensions on both sides.
    return torch.kron(first.reshape(*first.shape, *[1] * (second.ndim - 2)), second.contiguous())


def lokr_first(f: Tensors) -> Tensor:
    return f["w1"] if "w1" in f else f["w1_a"] @ f["w1_b"]


def lokr_second(f: Tensors) -> Tensor:
    if "w2" in f:
        return f["w2"]
    return tucker(f["t2"], f["w2_a"], f["w2_b"]) if "t2" in f else f["w2_a"] @ f["w2_b"]


def locon_delta(f: Tensors) -> Tensor:
    """up (out, r[, 1, 1]) · down (r, in[, k, k]) -> (out, in·k²); with mid (r, r, k, k), (out, in, k, k)."""
    up, down = f["up"].flatten(1), f["down"].flatten(1)
    if "mid" in f:
        return tucker(f["mid"], up.T, down)
    return up @ down


DELTAS: dict[str, Callable[[Tensors], Tensor]] = {"loha": loha_delta, "lokr": lokr_delta, "locon": locon_delta}


def locon_gradients(f: Tensors, grad: Tensor, scale: float) -> dict[str, Tensor]:
    """Gradients of LoCon's factors from that of scale·ΔW, in its shape; for factors without a Tucker core.

    Written out, because autograd within a backward pass takes longer than a small layer.
    """
    up, down, grad = f["up"].flatten(1) * scale, f["down"].flatten(1) * scale, grad.flatten(1)
    return {"up": (grad @ down.T).reshape(f["up"].shape), "down": (up.T @ grad).reshape(f["down"].shape)}


def lokr_first_gradients(f: Tensors, grad: Tensor) -> dict[str, Tensor]:
    """Gradients of W1, or of its two factors, from that of W1."""
    return {"w1": grad} if "w1" in f else {"w1_a": grad @ f["w1_b"].T, "w1_b": f["w1_a"].T @ grad}


def lokr_second_gradients(f: Tensors, grad: Tensor) -> dict[str, Tensor]:
    """Gradients of W2, or of its two factors, from that of W2; there is no Tucker core."""
    if "w2" in f:
        return {"w2": grad}
    grad = grad.flatten(1)
    return {"w2_a": grad @ f["w2_b"].T, "w2_b": f["w2_a"].T @ grad}
