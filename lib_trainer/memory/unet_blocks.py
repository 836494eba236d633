"""The UNet of Stable Diffusion as a list of blocks, each with its layers and the activations it holds.

A block is kept or recomputed as one: a residual block, a transformer block, or the single layers between them. All
sizes are elements, not bytes. What backward needs: of a layer, a norm and an activation function the input; of
attention q, k, v and the result.
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
    """One layer of a block, as backward meets it.

    Attributes:
        operation: the layer's.
        x_shape: of its input, for one image.
        alive: elements that the block holds at that moment beside the layer's own: what backward still needs, and
            gradients in flight.
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
        sites: in the order of backward.
        inputs: elements kept for backward if the block is recomputed.
        kept: elements kept if it is not.
        float_rows: float32 elements kept as well: softmax sums of attention, means of norms.
        recomputable: gradient checkpointing can recompute it.
        offloadable: its layers' weights can be stored in 8 bits or offloaded.
        other_weights: frozen parameters outside its layers.
        frozen_weights: of layers that are never adapted, but stored in 8 bits or offloaded like those that are.
    """

    sites: tuple[LayerSite, ...]
    inputs: int
    kept: int
    float_rows: int = 0
    recomputable: bool = False
    offloadable: bool = True
    other_weights: int = 0
    frozen_weights: int = 0


def unet_blocks(shape: UNetShape, width_px: int, height_px: int) -> list[Block]:
    """The UNet for one image, in the order of forward."""
    return list(_Blocks(shape, width_px // _LATENT_PX, height_px // _LATENT_PX).run())


class _Blocks:
    def __init__(self, shape: UNetShape, width: int, height: int) -> None:
        self.shape, self.sizes = shape, [(height, width)]
        # Rounded up, as a strided convolution with padding does.
        for _ in shape.channels[1:]:
            height, width = -(-height // 2), -(-width // 2)
            self.sizes.append((height, width))
        self.embedding = shape.channels[0] * 4
        self.single_layers = not shape.pooled_dim

    def run(self) -> Iterator[Block]:
        shape, last = self.shape, len(self.shape.channels) - 1
        # Skip connections: what each block of the way down hands to one of the way up.
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
            # One more than on the way down: the downsampled output is a skip as well.
            for _ in range(shape.res_blocks + 1):
                yield self._residual(level, channels + skips.pop(), width)
                yield from self._transformer(level, width, shape.depths[level])
                channels = width
            if level:
                yield self._resample(level - 1, channels, (1, 1))
        yield self._last(channels)

    def _positions(self, level: int) -> int:
        return self.sizes[level][0] * self.sizes[level][1]

    def _first(self, channels: int) -> Block:
        """The time and size embeddings, and the first convolution."""
        shape, size = self.shape, self.sizes[0]
        sites = [
            LayerSite(_conv(shape.latent_channels, channels), (shape.latent_channels, *size), 0, self.single_layers)
        ]
        inner = [(channels, self.single_layers), *([(shape.pooled_dim, False)] if shape.pooled_dim else [])]
        for width, adapted in inner:
            sites += [
                LayerSite(LayerOp((self.embedding, self.embedding)), (self.embedding,), 0, adapted),
                LayerSite(LayerOp((self.embedding, width)), (width,), 0, adapted),
            ]
        return Block(tuple(sites), 0, 4 * self.embedding)

    def _last(self, channels: int) -> Block:
        size, elements = self.sizes[0], channels * self._positions(0)
        site = LayerSite(
            _conv(channels, self.shape.latent_channels), (channels, *size), 3 * elements, self.single_layers
        )
        return Block((site,), 3 * elements, 3 * elements)

    def _resample(self, level: int, channels: int, stride: tuple[int, int]) -> Block:
        """Halves the resolution of `level`, or doubles that of the level below."""
        elements = channels * self._positions(level)
        site = LayerSite(_conv(channels, channels, stride=stride), (channels, *self.sizes[level]), elements)
        # Downsampling keeps its input for the skip connection; upsampling keeps the enlarged input.
        return Block((site,), elements, elements)

    def _residual(self, level: int, before: int, after: int) -> Block:
        size, positions = self.sizes[level], self._positions(level)
        inner, outer = before * positions, after * positions
        # Each half keeps three inputs: the norm's, the activation's, the convolution's.
        kept = 3 * inner + 3 * outer
        sites = [
            LayerSite(_conv(after, after), (after, *size), kept + outer + (inner if before != after else outer)),
            LayerSite(LayerOp((after, self.embedding)), (self.embedding,), 3 * inner + 2 * outer),
            LayerSite(_conv(before, after), (before, *size), 3 * inner + outer + (inner if before != after else outer)),
        ]
        # The shortcut is a 1×1 convolution where the widths differ.
        if before != after:
            sites.insert(0, LayerSite(_conv(before, after, kernel=1), (before, *size), kept + outer))
        return Block(tuple(sites), inner, kept, recomputable=True)

    def _transformer(self, level: int, width: int, depth: int) -> Iterator[Block]:
        if not depth:
            return
        size, positions = self.sizes[level], self._positions(level)
        elements = width * positions
        # SD 2 and SDXL; SD 1 has 1×1 convolutions.
        if self.shape.linear_projection:
            projection, x_shape = LayerOp((width, width)), (positions, width)
        else:
            projection, x_shape = _conv(width, width, kernel=1), (width, *size)
        yield Block((LayerSite(projection, x_shape, 3 * elements),), 2 * elements, 2 * elements)
        for _ in range(depth):
            yield self._attention(level, width, positions)
        yield Block((LayerSite(projection, x_shape, 2 * elements),), elements, elements)

    def _attention(self, level: int, width: int, positions: int) -> Block:
        """Self-attention, cross-attention and the feed-forward layers, each behind a norm.

        Its sites run from the last layer of forward to the first; `alive` shrinks as their inputs are freed.
        """
        unit, context = positions * width, self.shape.context_dim
        tokens, text = (positions, width), (_TEXT_TOKENS, context)
        # Keys and values of the text, in cross-attention.
        keys = 2 * _TEXT_TOKENS * width
        side, cross = LayerOp((width, width)), LayerOp((width, context))
        sites = (
            LayerSite(LayerOp((width, 4 * width)), (positions, 4 * width), 28 * unit + keys + 2 * unit),
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
        rows = 2 * positions * self.shape.heads[level] + 6 * positions
        return Block(sites, unit, 28 * unit + keys, rows, recomputable=True)


def _conv(before: int, after: int, kernel: int = 3, stride: tuple[int, int] = (1, 1)) -> LayerOp:
    return LayerOp((after, before, kernel, kernel), stride, (kernel // 2, kernel // 2))
