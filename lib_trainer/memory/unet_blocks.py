"""The UNet of Stable Diffusion as a list of stretches, each with its layers and the activations it holds.

A stretch is what is kept or recomputed as one: a residual block, a transformer block, or the odd layers between them.
All numbers are elements, not bytes. What each operation keeps for backward: a layer its input, a norm its input, an
activation its input, attention q, k, v and its result.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lib_trainer.adapter.kernels.autograd import LayerOp
from lib_trainer.models.families import UNetShape

_TEXT_TOKENS = 77
_LATENT_PX = 8


@dataclass(frozen=True)
class LayerSite:
    """One layer of a stretch, as backward meets it.

    Attributes:
        operation: the layer's.
        x_shape: of its input, for one picture.
        alive: elements that the stretch holds at that moment besides the layer's own work: what is still kept for
            backward, and gradients under way.
        adapted: whether kohya + LyCORIS put an adapter on it.
    """

    operation: LayerOp
    x_shape: tuple[int, ...]
    alive: int
    adapted: bool = True


@dataclass(frozen=True)
class Block:
    """Layers that are kept or recomputed together.

    Attributes:
        stages: in the order of backward.
        inputs: elements that are kept for backward when the stretch is recomputed.
        kept: elements that are kept when it is not.
        float_rows: float32 numbers kept besides: the sums of attention's softmax and the norms' means.
        recomputable: a stretch that can be recomputed; others always keep all.
        lean: its layers' weights can be stored in 8 bits or streamed.
        other_weights: numbers of frozen weights that are no layer's.
    """

    stages: tuple[LayerSite, ...]
    inputs: int
    kept: int
    float_rows: int = 0
    recomputable: bool = False
    lean: bool = True
    other_weights: int = 0


def stretches(shape: UNetShape, width_px: int, height_px: int) -> list[Block]:
    """The whole UNet for one picture, in the order of forward."""
    return list(_Walk(shape, width_px // _LATENT_PX, height_px // _LATENT_PX).run())


class _Walk:
    def __init__(self, shape: UNetShape, width: int, height: int) -> None:
        self.shape, self.sizes = shape, [(height, width)]
        for _ in shape.channels[1:]:
            height, width = -(-height // 2), -(-width // 2)
            self.sizes.append((height, width))
        self.embedding = shape.channels[0] * 4
        self.single_layers = not shape.pooled_dim

    def run(self) -> Iterator[Block]:
        shape, last = self.shape, len(self.shape.channels) - 1
        channels, skips = shape.channels[0], [shape.channels[0]]
        yield self._first(channels)
        for level, width in enumerate(shape.channels):
            for _ in range(shape.res_blocks):
                yield self._residual(level, channels, width)
                yield from self._transformer(level, width, shape.depths[level])
                channels = width
                skips.append(channels)
            if level < last:
                yield self._resample(level, channels, (2, 2))
                skips.append(channels)
        yield self._residual(last, channels, channels)
        yield from self._transformer(last, channels, shape.middle_depth)
        yield self._residual(last, channels, channels)
        for level, width in reversed(list(enumerate(shape.channels))):
            for _ in range(shape.res_blocks + 1):
                yield self._residual(level, channels + skips.pop(), width)
                yield from self._transformer(level, width, shape.depths[level])
                channels = width
            if level:
                yield self._resample(level - 1, channels, (1, 1))
        yield self._last(channels)

    def _places(self, level: int) -> int:
        return self.sizes[level][0] * self.sizes[level][1]

    def _first(self, channels: int) -> Block:
        """The time and size embeddings, and the first convolution."""
        shape, size = self.shape, self.sizes[0]
        stages = [
            LayerSite(_conv(shape.latent_channels, channels), (shape.latent_channels, *size), 0, self.single_layers)
        ]
        inner = [(channels, self.single_layers), *([(shape.pooled_dim, False)] if shape.pooled_dim else [])]
        for width, adapted in inner:
            stages += [
                LayerSite(LayerOp((self.embedding, self.embedding)), (self.embedding,), 0, adapted),
                LayerSite(LayerOp((self.embedding, width)), (width,), 0, adapted),
            ]
        return Block(tuple(stages), 0, 4 * self.embedding)

    def _last(self, channels: int) -> Block:
        size, elements = self.sizes[0], channels * self._places(0)
        stage = LayerSite(
            _conv(channels, self.shape.latent_channels), (channels, *size), 3 * elements, self.single_layers
        )
        return Block((stage,), 3 * elements, 3 * elements)

    def _resample(self, level: int, channels: int, stride: tuple[int, int]) -> Block:
        """Halves the size of `level`, or doubles what comes from below to it."""
        elements = channels * self._places(level)
        stage = LayerSite(_conv(channels, channels, stride=stride), (channels, *self.sizes[level]), elements)
        # On the way down the input is the skip that the way up takes; on the way up it is the enlarged picture.
        return Block((stage,), elements, elements)

    def _residual(self, level: int, before: int, after: int) -> Block:
        size, places = self.sizes[level], self._places(level)
        inner, outer = before * places, after * places
        # Kept of each half: the norm's input, the activation's, the convolution's.
        kept = 3 * inner + 3 * outer
        stages = [
            LayerSite(_conv(after, after), (after, *size), kept + outer + (inner if before != after else outer)),
            LayerSite(LayerOp((after, self.embedding)), (self.embedding,), 3 * inner + 2 * outer),
            LayerSite(_conv(before, after), (before, *size), 3 * inner + outer + (inner if before != after else outer)),
        ]
        if before != after:
            stages.insert(0, LayerSite(_conv(before, after, kernel=1), (before, *size), kept + outer))
        return Block(tuple(stages), inner, kept, recomputable=True)

    def _transformer(self, level: int, width: int, depth: int) -> Iterator[Block]:
        if not depth:
            return
        size, places = self.sizes[level], self._places(level)
        elements = width * places
        if self.shape.linear_projection:
            projection, x_shape = LayerOp((width, width)), (places, width)
        else:
            projection, x_shape = _conv(width, width, kernel=1), (width, *size)
        yield Block((LayerSite(projection, x_shape, 3 * elements),), 2 * elements, 2 * elements)
        for _ in range(depth):
            yield self._attention(level, width, places)
        yield Block((LayerSite(projection, x_shape, 2 * elements),), elements, elements)

    def _attention(self, level: int, width: int, places: int) -> Block:
        """Self-attention, cross-attention and the feed-forward layers, each behind a norm."""
        unit, context = places * width, self.shape.context_dim
        tokens, text = (places, width), (_TEXT_TOKENS, context)
        keys = 2 * _TEXT_TOKENS * width
        side, cross = LayerOp((width, width)), LayerOp((width, context))
        stages = (
            LayerSite(LayerOp((width, 4 * width)), (places, 4 * width), 28 * unit + keys + 2 * unit),
            LayerSite(LayerOp((8 * width, width)), tokens, 12 * unit + keys + 9 * unit),
            LayerSite(side, tokens, 10 * unit + keys + 2 * unit),
            LayerSite(cross, text, 8 * unit + 3 * unit),
            LayerSite(cross, text, 8 * unit + 3 * unit),
            LayerSite(side, tokens, 8 * unit + 2 * unit),
            LayerSite(side, tokens, 6 * unit + 2 * unit),
            LayerSite(side, tokens, 2 * unit + 4 * unit),
            LayerSite(side, tokens, 2 * unit + 4 * unit),
            LayerSite(side, tokens, 2 * unit + 4 * unit),
        )
        rows = 2 * places * self.shape.heads[level] + 6 * places
        return Block(stages, unit, 28 * unit + keys, rows, recomputable=True)


def _conv(before: int, after: int, kernel: int = 3, stride: tuple[int, int] = (1, 1)) -> LayerOp:
    return LayerOp((after, before, kernel, kernel), stride, (kernel // 2, kernel // 2))
