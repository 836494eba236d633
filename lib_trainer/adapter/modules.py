"""One adapted layer: its factors, and how they act on the layer's input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lib_trainer.adapter.delta_weight import DELTAS, Tensors
from lib_trainer.adapter.dora import DORA, decomposed, shaped_for
from lib_trainer.adapter.kernels.autograd import LayerOp, ReadWeight, Strategy, apply_frozen, apply_strategy
from lib_trainer.adapter.kernels.candidates import LayerCase
from lib_trainer.adapter.kernels.choices import KernelChoices
from lib_trainer.adapter.kernels.decomposed import Decomposed
from lib_trainer.adapter.kernels.dispatch import build_strategy, dense
from lib_trainer.adapter.kernels.int8 import fits_int8
from lib_trainer.adapter.kernels.measure import fastest


class AdapterModule(nn.Module):
    """The trainable parameters of one layer's ΔW, in float32.

    Args:
        algo: `loha`, `lokr` or `locon`; `norm` is `adapter.norms`.
        tensors: our factor name -> tensor; shapes as in `adapter.delta_weight`.
        alpha: the file's alpha; ΔW is scaled by alpha / rank, except LoKr with two full factors, which ignores it.
        magnitude: of DoRA, as `adapter.dora` shapes it; None for a layer without.

    Attributes:
        strength: ΔW is multiplied by it.
        row_mask: (out,) zeros and ones, the rows of ΔW that rank dropout keeps; None for all.
        dropped: module dropout skips ΔW.
        dropout: (share, seed) of network dropout; None for none.
        rank_mask: (B, r) zeros and ones, the ranks of LoCon that act on each picture of the batch; None for all.
    """

    def __init__(self, algo: str, tensors: Mapping[str, Tensor], alpha: float, magnitude: Tensor | None = None) -> None:
        super().__init__()
        self.algo = algo
        self.alpha = alpha
        self.strength = 1.0
        self.row_mask: Tensor | None = None
        self.dropped = False
        self.dropout: tuple[float, int] | None = None
        self.rank_mask: Tensor | None = None
        self._choices = KernelChoices()
        self._strategies: dict[Any, Strategy] = {}
        self.names = tuple(tensors)
        for name, tensor in tensors.items():
            self.register_parameter(name, nn.Parameter(tensor))
        self.register_parameter(DORA, None if magnitude is None else nn.Parameter(magnitude))

    @property
    def tensors(self) -> dict[str, Tensor]:
        # nn.Module looks up attributes by search, and this is asked in every pass of every layer.
        parameters = self._parameters
        return {name: parameters[name] for name in self.names}

    @property
    def inputs(self) -> dict[str, Tensor]:
        """What its strategies compute with: `tensors`, and the magnitude of a DoRA."""
        scale = self.dora_scale
        return self.tensors if scale is None else {**self.tensors, DORA: scale}

    @property
    def rank(self) -> int:
        """Rank of the low-rank factor; 0 where every factor is full."""
        # LoKr may be low-rank in W1, in W2 or in both; LyCORIS scales by the rank of W2 then.
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

    def change(self, weight: Tensor) -> Tensor:
        """What is added to this weight (out, in[, k, k]) at strength 1, float32: ΔW, or W' − W of a DoRA.

        Raises:
            RuntimeError: the factors or the magnitudes do not fit the weight.
        """
        delta = self.delta(weight.shape)
        if self.dora_scale is None:
            return delta
        weight = weight.to(delta.dtype)
        return decomposed(weight + delta, shaped_for(self.dora_scale, tuple(weight.shape))) - weight

    def bias_change(self) -> Tensor | None:
        """What is added to the layer's bias at strength 1; None for all but norms."""
        return None

    def apply_to(self, operation: LayerOp, read: ReadWeight, x: Tensor) -> Tensor:
        """operation(x, W + strength·ΔW) + bias, by the fastest strategy that loses no precision.

        A DoRA's ΔW is its `change`.

        Args:
            read: reads the frozen weight and bias in the dtype and on the device of a tensor.
            x: (…, in) or (B, in, H, W), in the compute dtype.
        """
        if self.dropped:
            return apply_frozen(operation, read, x)
        if (self.dropout is not None or self.rank_mask is not None) and self.dora_scale is None:
            return apply_frozen(operation, read, x) + self._masked_product(operation, x)
        return apply_strategy(
            self.strategy(operation, x, int8=getattr(read, "int8", None) is not None), read, x, self.inputs
        )

    def compute_by(self, choices: KernelChoices) -> None:
        """Takes the strategies that these choices name; the layers of a model share them."""
        self._choices, self._strategies = choices, {}

    def strategy(self, operation: LayerOp, x: Tensor, *, int8: bool = False) -> Strategy:
        """How `apply_to` computes for an input like x: made once for inputs of one kind.

        Args:
            int8: the frozen weight can be had in 8 bits.
        """
        key = (operation, x.shape, x.dtype, x.device, self.strength, self.row_mask is None, int8)
        found = self._strategies.get(key)
        if found is None:
            found = self._strategies[key] = self._new_strategy(operation, x, int8)
        return found

    def _new_strategy(self, operation: LayerOp, x: Tensor, int8: bool) -> Strategy:
        if self.dora_scale is not None or self.row_mask is not None:
            return self._masked_strategy(operation, x)

        def measure(names: tuple[str, ...]) -> str:
            return fastest({name: self.strategy_named(name, operation, x) for name in names}, operation, x, factors)

        factors = self.tensors
        case = LayerCase.of(self.algo, factors, operation, x, int8=int8 and fits_int8(operation, x))
        return self.strategy_named(self._choices.choose(case, x.device, measure), operation, x)

    def strategy_named(self, name: str, operation: LayerOp, x: Tensor) -> Strategy:
        """One of the strategies for an input like x, without DoRA and rank dropout."""
        factors, scale = self.tensors, self.strength * self.scale
        return build_strategy(name, self.algo, factors, operation, scale, precise=self._is_precise(x))

    def possible_strategies(
        self, operation: LayerOp, x: Tensor, choices: KernelChoices, *, int8: bool = False
    ) -> list[Strategy]:
        """Those among which `choices` chooses for an input like x; `int8` as for `strategy`."""
        if self.dora_scale is not None:
            return [self._masked_strategy(operation, x)]
        case = LayerCase.of(self.algo, self.tensors, operation, x, int8=int8 and fits_int8(operation, x))
        names = choices.possible(case)
        return [self.strategy_named(name, operation, x) for name in names]

    def _masked_strategy(self, operation: LayerOp, x: Tensor) -> Strategy:
        """That of a DoRA, or under rank dropout: a mask on rows has no factored form."""
        if self.dora_scale is not None:
            return Decomposed(operation, partial(self._masked_delta, self.scale), self.strength)
        delta = partial(self._masked_delta, self.strength * self.scale)
        return dense(operation, delta, precise=self._is_precise(x))

    def _is_precise(self, x: Tensor) -> bool:
        """Whether the compute dtype is that of the factors."""
        return x.dtype == next(iter(self.tensors.values())).dtype

    def limit_norm(self, most: float) -> None:
        """Shrinks all factors alike until ΔW at strength 1 has at most this Frobenius norm.

        Source: sd-scripts' `scale_weight_norms`, after max-norm regularisation (Srivastava et al., 2014).
        """
        with torch.no_grad():
            norm = torch.linalg.vector_norm(self.delta())
            # ΔW is a product of every factor once. On the device: an `if` would wait for each layer.
            share = (most / norm.clamp(min=most)) ** (1 / len(self.names))
            for factor in self.tensors.values():
                factor.mul_(share)

    @property
    def zero_factors(self) -> list[nn.Parameter]:
        """The factor that begins at zero, which LoRA+ gives a rate of its own."""
        name = {"locon": "up", "loha": "w2_a", "lokr": "w2" if "w2" in self.names else "w2_b"}[self.algo]
        return [getattr(self, name)]

    def _masked_product(self, operation: LayerOp, x: Tensor) -> Tensor:
        """ΔW·x of LoCon, where ranks, or a share of the values between down and up, are left out."""
        f = {name: factor.to(x.dtype) for name, factor in self.tensors.items()}
        inner = replace(operation, shape=tuple((f["mid"] if "mid" in f else f["down"]).shape))
        if "mid" in f:
            x = LayerOp(tuple(f["down"].shape))(x, f["down"])
        between = inner(x, f["mid"] if "mid" in f else f["down"])
        if self.rank_mask is not None:
            ranks = 1 if operation.is_conv else between.ndim - 1
            between = between * self.rank_mask.to(between).reshape(
                *[size if axis in (0, ranks) else 1 for axis, size in enumerate(between.shape)]
            )
        if self.dropout is not None:
            share, seed = self.dropout
            # From a seed: gradient checkpointing runs a layer twice, which must leave out the same values.
            generator = torch.Generator(x.device).manual_seed(seed)
            kept = torch.rand(between.shape, generator=generator, device=x.device) >= share
            # What is kept is raised, so that the sum stays as large.
            between = between * kept.to(x.dtype) / (1 - share)
        return LayerOp(tuple(f["up"].shape))(between * (self.strength * self.scale), f["up"])

    def _masked_delta(self, scale: float, factors: Tensors) -> Tensor:
        change = DELTAS[self.algo](factors) * scale
        if self.row_mask is None:
            return change
        # Rows of ΔW, not of the factors: LyCORIS' rank dropout drops output channels.
        return change * self.row_mask.to(change).reshape(-1, *[1] * (change.ndim - 1))

    def _first_shape(self) -> tuple[int, int]:
        """(out_l, in_m) of LoKr's first factor."""
        return tuple(self.w1.shape) if "w1" in self.names else (self.w1_a.shape[0], self.w1_b.shape[1])
