"""One adapted layer: its factors, and how they act on the layer's input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from lib_trainer.adapter.functional import DELTAS, PRODUCTS, Operation, ReadWeight, frozen, merged
from lib_trainer.adapter.names import ALPHA, FILE_KEYS
from lib_trainer.config import AdapterConfig
from lib_trainer.errors import MissingPackage

# Multiply-adds of large products that one multiply-add of a small one takes, and one number that W1 mixes. Measured on
# a CPU core, float32, 17 shapes of SD 1.5 and SDXL: the faster way is taken on each, or they differ by under 7 %.
_SMALL_PRODUCT_COST = 1.5
_MIX_COST = 18


class Factors(nn.Module):
    """The trainable parameters of one layer's ΔW, in float32.

    Args:
        algo: `loha`, `lokr` or `locon`.
        tensors: our factor name -> tensor; shapes as in `adapter.functional`.
        alpha: the file's alpha; ΔW is scaled by alpha / rank, but for LoKr with two full factors, where it is 1.

    Attributes:
        strength: ΔW is multiplied by it.
        row_mask: (out,) zeros and ones, the rows of ΔW that take part (rank dropout); None for all.
        silenced: the whole layer sits out (module dropout).
    """

    def __init__(self, algo: str, tensors: Mapping[str, Tensor], alpha: float) -> None:
        super().__init__()
        self.algo = algo
        self.alpha = alpha
        self.strength = 1.0
        self.row_mask: Tensor | None = None
        self.silenced = False
        self.names = tuple(tensors)
        for name, tensor in tensors.items():
            self.register_parameter(name, nn.Parameter(tensor))

    @property
    def tensors(self) -> dict[str, Tensor]:
        return {name: getattr(self, name) for name in self.names}

    @property
    def rank(self) -> int:
        """Rank of the low-rank factor; 0 where every factor is full."""
        for name in ("down", "w2_b", "w1_b"):
            if name in self.names:
                return getattr(self, name).shape[0]
        return 0

    @property
    def out_features(self) -> int:
        if self.algo == "locon":
            return self.up.shape[0]
        if self.algo == "loha":
            return self.w1_a.shape[1 if "t1" in self.names else 0]
        second = self.w2.shape[0] if "w2" in self.names else self.w2_a.shape[1 if "t2" in self.names else 0]
        return self._first_shape()[0] * second

    @property
    def scale(self) -> float:
        return self.alpha / self.rank if self.rank else 1.0

    def delta(self, shape: Sequence[int] | None = None) -> Tensor:
        """ΔW at strength 1, float32; (out, in·k²) where the factors do not tell k, or reshaped to `shape`."""
        change = DELTAS[self.algo](self.tensors) * self.scale
        return change if shape is None else change.reshape(tuple(shape))

    def apply_to(self, operation: Operation, read: ReadWeight, x: Tensor) -> Tensor:
        """The layer with ΔW: operation(x, W + strength·ΔW) + bias, by the cheapest way that loses nothing.

        Args:
            read: reads the frozen weight and bias in the dtype and on the device of a tensor.
            x: (…, in) or (B, in, H, W), in the compute dtype.
        """
        if self.silenced:
            return frozen(operation, read, x)
        if self._product_is_cheaper(operation, x):
            own = {name: tensor.to(x.dtype) for name, tensor in self.tensors.items()}
            return frozen(operation, read, x) + self._masked(operation, PRODUCTS[self.algo](operation, own, x))
        factors = list(self.tensors.values())
        if x.dtype in (torch.float32, torch.float64):
            return merged(operation, read, self._scaled_delta, x, factors)
        # Added to a half-precision weight, a young ΔW would be rounded away; its own product keeps it.
        return frozen(operation, read, x) + merged(operation, None, self._scaled_delta, x, factors)

    def _scaled_delta(self, values: Sequence[Tensor]) -> Tensor:
        change = DELTAS[self.algo](dict(zip(self.names, values, strict=True))) * (self.strength * self.scale)
        if self.row_mask is None:
            return change
        return change * self.row_mask.to(change).reshape(-1, *[1] * (change.ndim - 1))

    def _masked(self, operation: Operation, product: Tensor) -> Tensor:
        product = product * (self.strength * self.scale)
        if self.row_mask is None:
            return product
        mask = self.row_mask.to(product)
        return product * (mask[:, None, None] if operation.is_conv else mask)

    def _product_is_cheaper(self, operation: Operation, x: Tensor) -> bool:
        """Compares multiply-adds of forward and backward without ΔW against those that merging ΔW adds."""
        if self.algo not in PRODUCTS or operation.groups != 1:
            return False
        out, inner = operation.shape[:2]
        kernel = operation.shape[2] * operation.shape[3] if operation.is_conv else 1
        places = x.numel() // inner // (operation.stride[0] * operation.stride[1])
        # Backward of the merged product needs the whole weight gradient; ΔW itself is built twice.
        merging = places * out * inner * kernel + 6 * out * inner * kernel
        if x.dtype not in (torch.float32, torch.float64):
            merging *= 3
        return 3 * places * self._product_width(out, inner, kernel) * _SMALL_PRODUCT_COST < merging

    def _product_width(self, out: int, inner: int, kernel: int) -> int:
        """Multiply-adds per place of the product without ΔW."""
        if self.algo == "locon":
            middle = self.rank * kernel if "mid" in self.names else 0
            return self.rank * ((inner if middle else inner * kernel) + middle + out)
        rows, columns = self._first_shape()
        if "w2" in self.names:
            width = out // rows
            outside = inner * width * kernel
        else:
            width = self.rank
            core = inner + columns * width * kernel if "t2" in self.names else inner * kernel
            outside = width * (core + out)
        return outside + columns * rows * width + _MIX_COST * (columns + rows) * width

    def _first_shape(self) -> tuple[int, int]:
        """(out_l, in_m) of LoKr's first factor."""
        return tuple(self.w1.shape) if "w1" in self.names else (self.w1_a.shape[0], self.w1_b.shape[1])


def new_factors(name: str, operation: Operation, config: AdapterConfig) -> Factors | None:
    """Fresh factors of one layer as LyCORIS makes them; None for a layer that the recipe leaves alone.

    LyCORIS draws its start values from torch's global random state.
    """
    wide = operation.is_conv and operation.shape[2:] != (1, 1)
    rank, alpha = (config.conv_dim, config.conv_alpha) if wide else (config.network_dim, config.network_alpha)
    if rank == 0:
        return None
    module = _lycoris_module(config.algo)(
        name,
        _shell(operation),
        lora_dim=rank,
        alpha=alpha,
        use_tucker=config.use_tucker,
        factor=config.factor,
        decompose_both=config.decompose_both,
        full_matrix=config.full_matrix,
    )
    made = dict(module.named_parameters())
    tensors = {ours: made[theirs].detach() for ours, theirs in FILE_KEYS[config.algo].items() if theirs in made}
    return Factors(config.algo, tensors, float(getattr(module, ALPHA)))


def _lycoris_module(algo: str) -> Any:
    if not find_spec("lycoris"):
        raise MissingPackage("lycoris-lora", "Training an adapter")
    from lycoris.modules.locon import LoConModule
    from lycoris.modules.loha import LohaModule
    from lycoris.modules.lokr import LokrModule

    return {"loha": LohaModule, "lokr": LokrModule, "locon": LoConModule}[algo]


def _shell(operation: Operation) -> nn.Module:
    """A layer of the same shape without weights: LyCORIS reads nothing but the shape from it."""
    out, inner = operation.shape[:2]
    if not operation.is_conv:
        return nn.Linear(inner, out, bias=False, device="meta")
    return nn.Conv2d(
        inner * operation.groups,
        out,
        operation.shape[2:],
        operation.stride,
        operation.padding,
        operation.dilation,
        operation.groups,
        bias=False,
        device="meta",
    )
