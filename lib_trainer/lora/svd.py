"""A change of weights as two factors of a chosen rank, by singular values."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lib_trainer.adapter.modules import AdapterModule
from lib_trainer.adapter.norms import NormModule, summed
from lib_trainer.errors import UserError

# Singular values below this share of the largest are rounding errors of float32.
_NOISE = 1e-6
# k×k convolutions of a UNet by their names in files: LoHa's and LoKr's factors do not tell k.
_WIDE = re.compile(r"_conv[12]$|samplers_0_conv$|_conv_(in|out)$|_in_layers_2$|_out_layers_3$|_\d+_\d_(op|conv)$")
_KERNEL = (3, 3)


@dataclass(frozen=True)
class Cut:
    """What is kept of the singular values σ, in order of size.

    Attributes:
        rank: at most so many; 0 for no limit.
        energy: so many that their σ² are this share of all; 1 keeps all that are not noise.
    """

    rank: int = 0
    energy: float = 1.0

    def count(self, values: Tensor) -> int:
        """How many of the singular values, largest first, are kept; at least one."""
        kept = int((values > _NOISE * values[0]).sum())
        if self.energy < 1:
            share = values.double().square().cumsum(0) / values.double().square().sum()
            kept = min(kept, int((share < self.energy).sum()) + 1)
        return max(1, min(kept, self.rank or kept))


def checked_cut(rank: int, energy: float) -> Cut:
    """Raises UserError for what is neither a rank nor a share."""
    if rank < 0 or not 0 < energy <= 1:
        raise UserError("A rank is 0 or more, an energy above 0 and at most 1.", "Give a rank of 16, or energy 0.95.")
    return Cut(rank, energy)


def factored(name: str, changes: Sequence[tuple[AdapterModule, float]], cut: Cut) -> AdapterModule:
    """Σ strength·ΔW of one layer as LoCon, whose alpha is its rank; that of a norm as it is.

    Args:
        name: kohya's, of the layer.
    """
    modules = [module for module, _ in changes]
    if all(isinstance(module, NormModule) for module in modules):
        return summed([(module, strength) for module, strength in changes if isinstance(module, NormModule)])
    if all(module.algo == "locon" and "mid" not in module.names for module in modules):
        # Without ΔW: side by side the factors are those of the sum.
        up = torch.cat([m.up.flatten(1) * (m.scale * strength) for m, strength in changes], 1)
        down = torch.cat([m.down.flatten(1) for m in modules], 0)
        kernel = tuple(modules[0].down.shape[2:])
        return as_locon(*_of_product(up.detach(), down.detach(), cut), kernel)
    total = sum(module.delta().detach().flatten(1) * strength for module, strength in changes)
    return as_locon(*split(total, cut), kernel_of(name, modules[0]))


def split(change: Tensor, cut: Cut) -> tuple[Tensor, Tensor]:
    """(out, n) -> up (out, r), down (r, n), whose product is the best approximation of that rank.

    Source: Eckart & Young (1936).
    """
    return _balanced(*torch.linalg.svd(change.float(), full_matrices=False), cut)


def as_locon(up: Tensor, down: Tensor, kernel: tuple[int, ...]) -> AdapterModule:
    """Factors (out, r) and (r, in·k²) as a LoCon of a layer with this kernel; () for linear layers."""
    rank = up.shape[1]
    shapes = (*up.shape, *[1] * len(kernel)), (rank, down.shape[1] // math.prod(kernel), *kernel)
    tensors = {"up": up.reshape(shapes[0]).contiguous(), "down": down.reshape(shapes[1]).contiguous()}
    return AdapterModule("locon", tensors, float(rank))


def kernel_of(name: str, module: AdapterModule) -> tuple[int, ...]:
    """The kernel of the layer that the factors belong to; () for linear layers and where 1×1 is all the same."""
    four = next((tensor for tensor in module.tensors.values() if tensor.ndim == 4 and tensor.shape[2] > 1), None)
    if four is not None:
        return tuple(four.shape[2:])
    return _KERNEL if _WIDE.search(name) else ()


def _of_product(up: Tensor, down: Tensor, cut: Cut) -> tuple[Tensor, Tensor]:
    left, inner = torch.linalg.qr(up.float())
    right, outer = torch.linalg.qr(down.float().T)
    u, values, v = torch.linalg.svd(inner @ outer.T, full_matrices=False)
    return _balanced(left @ u, values, v @ right.T, cut)


def _balanced(u: Tensor, values: Tensor, v: Tensor, cut: Cut) -> tuple[Tensor, Tensor]:
    count = cut.count(values)
    root = values[:count].sqrt()
    return u[:, :count] * root, root[:, None] * v[:count]
