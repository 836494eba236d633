"""The UNet of Stable Diffusion as a list of blocks, each with its layers and the activations it holds.

A block is kept or recomputed as one: a residual block, a transformer block, or the single layers between them. All
sizes are elements, not bytes. What backward needs: of a layer, a norm and an activation function the input; of
attention q, k, v and the result.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count

from lib_trainer.adapter.kernels.autograd import LayerOp
from lib_trainer.models.families import UNetShape
from lib_trainer.models.layer_names import diffusers_names, kohya_name

_TEXT_TOKENS = 77
_LATENT_PX = 8
# The layers of a transformer block, in the order of backward.
_ATTENTION = (
    *("ff.net.2", "ff.net.0.proj", "attn2.to_out.0", "attn2.to_v", "attn2.to_k", "attn2.to_q"),
    *("attn1.to_out.0", "attn1.to_v", "attn1.to_k", "attn1.to_q"),
)


@dataclass(frozen=True)
class LayerSite:
    """One layer of a block, as backward meets it.

    Attributes:
        operation: the layer's.
        x_shape: of its input, for one image.
        alive: elements that the block holds at that moment beside the layer's own: what backward still needs, and
            gradients in flight.
        adapted: whether kohya + LyCORIS put an adapter on it.
        name: in files, like `lora_unet_mid_block_resnets_0_conv1`.
    """

    operation: LayerOp
    x_shape: tuple[int, ...]
    alive: int
    adapted: bool = True
    name: str = ""


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
        norms: (name in files, channels) of each norm.
    """

    sites: tuple[LayerSite, ...]
    inputs: int
    kept: int
    float_rows: int = 0
    recomputable: bool = False
    offloadable: bool = True
    other_weights: int = 0
    frozen_weights: int = 0
    norms: tuple[tuple[str, int], ...] = ()


def unet_blocks(shape: UNetShape, width_px: int, height_px: int) -> list[Block]:
    """The UNet for one image, in the order of forward."""
    blocks = list(_Blocks(shape, width_px // _LATENT_PX, height_px // _LATENT_PX).run())
    ldm = [name for block in blocks for name in (*(site.name for site in block.sites), *dict(block.norms))]
    # kohya names SD 1.x and 2.x as diffusers does.
    names = {name: name for name in ldm} if shape.pooled_dim else diffusers_names(ldm)
    return [
        replace(
            renamed(block, [kohya_name(names[site.name]) for site in block.sites]),
            norms=tuple((kohya_name(names[name]), channels) for name, channels in block.norms),
        )
        for block in blocks
    ]


def renamed(block: Block, names: Sequence[str]) -> Block:
    """The block with these names of its sites, in the order of backward."""
    return replace(block, sites=tuple(replace(site, name=name) for site, name in zip(block.sites, names, strict=True)))


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
        # LDM counts the blocks of each way; the first is the first convolution.
        inputs = (f"input_blocks.{number}" for number in count(1))
        for level, width in enumerate(shape.channels):
            for _ in range(shape.res_blocks):
                name = next(inputs)
                yield self._residual(f"{name}.0", level, channels, width)
                yield from self._transformer(f"{name}.1", level, width, shape.depths[level])
                channels = width
                skips.append(channels)
            if level < last:
                yield self._resample(f"{next(inputs)}.0.op", level, channels, (2, 2))
                skips.append(channels)
        yield self._residual("middle_block.0", last, channels, channels)
        yield from self._transformer("middle_block.1", last, channels, shape.middle_depth)
        yield self._residual("middle_block.2", last, channels, channels)
        outputs = (f"output_blocks.{number}" for number in count())
        for level, width in reversed(list(enumerate(shape.channels))):
            # One more than on the way down: the downsampled output is a skip as well.
            for _ in range(shape.res_blocks + 1):
                name = next(outputs)
                yield self._residual(f"{name}.0", level, channels + skips.pop(), width)
                yield from self._transformer(f"{name}.1", level, width, shape.depths[level])
                channels = width
            if level:
                # Behind the transformer, where there is one.
                yield self._resample(f"{name}.{2 if shape.depths[level] else 1}.conv", level - 1, channels, (1, 1))
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
        block = Block(tuple(sites), 0, 4 * self.embedding)
        names = ["input_blocks.0.0", "time_embed.2", "time_embed.0", "label_emb.0.2", "label_emb.0.0"]
        return renamed(block, names[: len(sites)])

    def _last(self, channels: int) -> Block:
        size, elements = self.sizes[0], channels * self._positions(0)
        site = LayerSite(
            _conv(channels, self.shape.latent_channels), (channels, *size), 3 * elements, self.single_layers
        )
        return renamed(Block((site,), 3 * elements, 3 * elements), ["out.2"])

    def _resample(self, name: str, level: int, channels: int, stride: tuple[int, int]) -> Block:
        """Halves the resolution of `level`, or doubles that of the level below."""
        elements = channels * self._positions(level)
        site = LayerSite(_conv(channels, channels, stride=stride), (channels, *self.sizes[level]), elements)
        # Downsampling keeps its input for the skip connection; upsampling keeps the enlarged input.
        return renamed(Block((site,), elements, elements), [name])

    def _residual(self, name: str, level: int, before: int, after: int) -> Block:
        size, positions = self.sizes[level], self._positions(level)
        inner, outer = before * positions, after * positions
        # Each half keeps three inputs: the norm's, the activation's, the convolution's.
        kept = 3 * inner + 3 * outer
        sites = [
            LayerSite(_conv(after, after), (after, *size), kept + outer + (inner if before != after else outer)),
            LayerSite(LayerOp((after, self.embedding)), (self.embedding,), 3 * inner + 2 * outer),
            LayerSite(_conv(before, after), (before, *size), 3 * inner + outer + (inner if before != after else outer)),
        ]
        names = [f"{name}.out_layers.3", f"{name}.emb_layers.1", f"{name}.in_layers.2"]
        # The shortcut is a 1×1 convolution where the widths differ.
        if before != after:
            sites.insert(0, LayerSite(_conv(before, after, kernel=1), (before, *size), kept + outer))
            names.insert(0, f"{name}.skip_connection")
        norms = ((f"{name}.in_layers.0", before), (f"{name}.out_layers.0", after))
        return renamed(Block(tuple(sites), inner, kept, recomputable=True, norms=norms), names)

    def _transformer(self, name: str, level: int, width: int, depth: int) -> Iterator[Block]:
        if not depth:
            return
        size, positions = self.sizes[level], self._positions(level)
        elements = width * positions
        # SD 2 and SDXL; SD 1 has 1×1 convolutions.
        if self.shape.linear_projection:
            projection, x_shape = LayerOp((width, width)), (positions, width)
        else:
            projection, x_shape = _conv(width, width, kernel=1), (width, *size)
        norms = ((f"{name}.norm", width),)
        first = Block((LayerSite(projection, x_shape, 3 * elements),), 2 * elements, 2 * elements, norms=norms)
        yield renamed(first, [f"{name}.proj_in"])
        inner = self._attention(level, width, positions)
        for number in range(depth):
            prefix = f"{name}.transformer_blocks.{number}"
            norms = tuple((f"{prefix}.norm{index}", width) for index in (1, 2, 3))
            yield replace(renamed(inner, [f"{prefix}.{part}" for part in _ATTENTION]), norms=norms)
        yield renamed(Block((LayerSite(projection, x_shape, 2 * elements),), elements, elements), [f"{name}.proj_out"])

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
