"""The peak of a training step, in parts that a person understands."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch

from lib_trainer.config.recipe import Recipe
from lib_trainer.memory.layer_cost import LayerCost, layer_cost
from lib_trainer.memory.text_blocks import text_stretches
from lib_trainer.memory.transformer_blocks import transformer_stretches
from lib_trainer.memory.unet_blocks import Block, LayerSite, stretches
from lib_trainer.models.families import Family, TransformerShape, UNetShape

_FLOAT_BYTES = 4
# bitsandbytes leaves the state of smaller tensors in float32, and keeps one scale for so many numbers.
_SMALLEST_8BIT, _SCALE_BLOCK = 4096, 256


@dataclass(frozen=True)
class Work:
    """What is trained: the UNet, its adapter, and the pictures of one pass.

    Attributes:
        optimizer: the recipe's, or what stands in for it on the device.
        weight_bytes: of one number of the frozen weights as they are stored; a share for low-bit forms.
        compute: dtype the UNet computes in.
    """

    family: Family
    shape: UNetShape | TransformerShape
    recipe: Recipe
    optimizer: str
    width_px: int
    height_px: int
    weight_bytes: float
    compute: torch.dtype


@dataclass(frozen=True)
class Savings:
    """How the step is made smaller.

    Attributes:
        recomputed: of the stretches that can be, how many are recomputed in backward; see `recompute_order`.
        fused: the optimizer steps layer by layer within backward.
        int8_base: the frozen weights of linear layers and convolutions are stored in 8 bits.
        streamed: share of those weights that stays on the CPU and is fetched for each use.
        optimizer: `AdamW8bit` may stand in for `AdamW`.
        batch: pictures of one pass.
    """

    recomputed: int
    fused: bool
    int8_base: bool
    streamed: float
    optimizer: str
    batch: int


@dataclass(frozen=True)
class Parts:
    """Bytes at the moment when most are taken."""

    base: int
    adapter: int
    optimizer: int
    gradients: int
    activations: int
    working: int

    @property
    def total(self) -> int:
        return self.base + self.adapter + self.optimizer + self.gradients + self.activations + self.working


@lru_cache(maxsize=64)
def all_stretches(work: Work) -> tuple[Block, ...]:
    """Everything that a step goes through, for one picture, in the order of forward."""
    text = text_stretches(work.family) if work.recipe.training.text_encoder_lr else ()
    if isinstance(work.shape, TransformerShape):
        return tuple(transformer_stretches(work.family, work.shape, work.width_px, work.height_px))
    return (*text, *stretches(work.shape, work.width_px, work.height_px))


def predict(work: Work, savings: Savings) -> Parts:
    """The parts of a training step at its peak."""
    walk = _Walk(work, savings)
    shapes = walk.adapter_shapes()
    state = sum(optimizer_bytes(savings.optimizer, shape) for shape in shapes)
    gradients, activations, working = walk.peak()
    return Parts(walk.base_bytes(), walk.adapter_bytes(), state, gradients, activations, working)


def optimizer_bytes(optimizer: str, shape: tuple[int, ...]) -> int:
    """What the optimizer keeps of one parameter of that shape."""
    numbers = math.prod(shape)
    if optimizer == "AdamW8bit" and numbers >= _SMALLEST_8BIT:
        return 2 * numbers + 2 * _FLOAT_BYTES * math.ceil(numbers / _SCALE_BLOCK)
    if optimizer == "Prodigy":
        return 4 * _FLOAT_BYTES * numbers
    if optimizer == "Adafactor" and len(shape) > 1:
        # One number a row and one a column of each matrix.
        return _FLOAT_BYTES * (numbers // shape[-1] + numbers // shape[-2])
    if optimizer == "Adafactor":
        return _FLOAT_BYTES * numbers
    return 2 * _FLOAT_BYTES * numbers


def recompute_order(parts: Sequence[Block]) -> list[int]:
    """Indices of the stretches that can be recomputed, those first that save most for their work.

    Work and memory of a layer both grow with the places; only the work grows with the square of the width. So the
    narrow, large stretches come first.
    """
    able = [index for index, part in enumerate(parts) if part.recomputable]
    return sorted(able, key=lambda index: (_work_of(parts[index]) / _saved_by(parts[index]), index))


def _work_of(part: Block) -> int:
    """Multiply-adds of its layers, for one picture."""
    total = 0
    for stage in part.stages:
        inner = stage.operation.shape[1]
        places = math.prod(stage.x_shape) // inner // math.prod(stage.operation.stride)
        total += places * math.prod(stage.operation.shape)
    return total


def _saved_by(part: Block) -> int:
    return part.kept - part.inputs


# A search for the cheapest plan asks for the same layers with hundreds of savings.
@lru_cache(maxsize=64)
def _costs(work: Work, batch: int, reads_copies: bool) -> tuple[tuple[LayerCost, ...], ...]:
    """The cost of each layer of each stretch, for a batch."""
    adapter, compute = work.recipe.adapter, work.compute
    return tuple(
        tuple(
            layer_cost(
                stage.operation,
                (batch, *stage.x_shape),
                adapter if stage.adapted else None,
                compute,
                reads_copy=reads_copies and stage.adapted,
            )
            for stage in part.stages
        )
        for part in all_stretches(work)
    )


class _Walk:
    """Goes through backward, stretch by stretch."""

    def __init__(self, work: Work, savings: Savings) -> None:
        self.work, self.savings = work, savings
        self.parts = all_stretches(work)
        self.recomputed = set(recompute_order(self.parts)[: savings.recomputed])
        self.number_bytes = torch.empty((), dtype=work.compute).element_size()
        copied = savings.int8_base or savings.streamed > 0 or work.weight_bytes != self.number_bytes
        self.costs = _costs(work, savings.batch, copied)

    def adapter_shapes(self) -> list[tuple[int, ...]]:
        """Shape of every trained parameter."""
        return [shape for costs in self.costs for cost in costs for shape in cost.factors]

    def adapter_bytes(self) -> int:
        return sum(math.prod(shape) for shape in self.adapter_shapes()) * _FLOAT_BYTES

    def base_bytes(self) -> int:
        """Frozen weights on the device."""
        layers = sum(self._stored_bytes(part, stage) for part in self.parts for stage in part.stages)
        # Biases and norms are a thousandth; they count with the rows of the weights.
        other = sum(3 * stage.operation.shape[0] for part in self.parts for stage in part.stages)
        other += sum(part.other_weights for part in self.parts)
        return round(layers + other * self.work.weight_bytes)

    def _stored_bytes(self, part: Block, stage: LayerSite) -> float:
        numbers = math.prod(stage.operation.shape)
        if not (stage.adapted and part.lean):
            return numbers * self.work.weight_bytes
        return self._lean_bytes(stage) * (1 - self.savings.streamed)

    def _lean_bytes(self, stage: LayerSite) -> float:
        return math.prod(stage.operation.shape) * (1.0 if self.savings.int8_base else self.work.weight_bytes)

    def _fetched_bytes(self) -> int:
        """Streamed weights that lie on the device: one that is used and the next one, at worst the largest."""
        if not self.savings.streamed:
            return 0
        return 2 * round(max(self._lean_bytes(stage) for part in self.parts for stage in part.stages if part.lean))

    def peak(self) -> tuple[int, int, int]:
        """(gradients, activations, working) where their sum is largest."""
        kept = [self._kept(index) for index in range(len(self.parts))]
        before, gradients, best = sum(kept), self._early_gradients(), (0, 0, 0)
        fetched = self._fetched_bytes()
        for index in reversed(range(len(self.parts))):
            part = self.parts[index]
            before -= kept[index]
            for stage, cost in zip(part.stages, self.costs[index], strict=True):
                own = cost.parameters * _FLOAT_BYTES
                alive = before + self._bytes(stage.alive) + part.float_rows * _FLOAT_BYTES * self.savings.batch
                moment = (gradients + own, alive, cost.backward + fetched)
                best = max(best, moment, key=sum)
                if not self.savings.fused and not self._accumulated:
                    gradients += own
        return best

    @property
    def _accumulated(self) -> bool:
        training = self.work.recipe.training
        return training.gradient_accumulation_steps > 1 or self.savings.batch < training.train_batch_size

    def _early_gradients(self) -> int:
        """Gradients that lie there before backward begins: those of the passes before."""
        if not self._accumulated:
            return 0
        return self.adapter_bytes()

    def _kept(self, index: int) -> int:
        part = self.parts[index]
        if index in self.recomputed:
            return self._bytes(part.inputs)
        return self._bytes(part.kept) + part.float_rows * _FLOAT_BYTES * self.savings.batch

    def _bytes(self, elements: int) -> int:
        return elements * self.savings.batch * self.number_bytes
