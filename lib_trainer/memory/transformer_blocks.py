"""A diffusion transformer as a list of blocks, each with its layers and the activations it holds.

As `unet_blocks`, in elements for one image. A layer keeps its input, a norm its own copy of its input, an activation
its input, attention q, k, v and its result, which is the input of the projection behind it. Modulation and gates keep
nothing: they multiply by constants, because what makes them is not trained.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lib_trainer.adapter.kernels.autograd import LayerOp
from lib_trainer.memory.unet_blocks import Block, LayerSite, renamed
from lib_trainer.models.families import Family, TransformerShape
from lib_trainer.models.layer_names import UNET_PREFIX

# The layers of a block of each kind, in the order of forward, by their names in files.
_NAMES = {
    "double_blocks": (
        *("img_attn_qkv", "txt_attn_qkv", "img_attn_proj", "img_mlp_0", "img_mlp_2"),
        *("txt_attn_proj", "txt_mlp_0", "txt_mlp_2"),
    ),
    "single_blocks": ("linear1", "linear2"),
    "layers": ("attention_qkv", "attention_out", "feed_forward_w1", "feed_forward_w3", "feed_forward_w2"),
    "blocks": (
        *("self_attn_q_proj", "self_attn_k_proj", "self_attn_v_proj", "self_attn_output_proj"),
        *("cross_attn_q_proj", "cross_attn_k_proj", "cross_attn_v_proj", "cross_attn_output_proj"),
        *("mlp_layer1", "mlp_layer2"),
    ),
}
# Gradients in flight: of a block's output, and of the branch that is being computed.
_UNDER_WAY = 2


@dataclass(frozen=True)
class _Part:
    """One step of a block's forward pass: what it keeps, and the layer it is, if it is one.

    Attributes:
        kept: elements.
        weight: (out, in); () for a step without a layer.
        tokens: rows of the layer's input.
    """

    kept: int
    weight: tuple[int, int] | tuple[()] = ()
    tokens: int = 0


def transformer_blocks(family: Family, shape: TransformerShape, width_px: int, height_px: int) -> list[Block]:
    """The transformer for one image, in the order of forward."""
    side = family.latent_px * shape.patch
    return list(_Walk(shape, -(-width_px // side) * -(-height_px // side)).run())


class _Walk:
    def __init__(self, shape: TransformerShape, image_tokens: int) -> None:
        self.shape, self.image, self.text = shape, image_tokens, shape.text_tokens
        self.kv_width = shape.kv_width or shape.width

    def run(self) -> Iterator[Block]:
        shape = self.shape
        square = shape.width**2
        refiners = shape.refiners * (self._joint_weights() + round(shape.modulation[1] * square))
        token = shape.latent_channels * shape.patch**2
        embedders = shape.width * (2 * token + shape.context_dim) + round(shape.modulation[2] * square)
        tokens = self.image + self.text
        yield Block((), 0, tokens * shape.width, other_weights=embedders, frozen_weights=refiners)
        # In multiples of width²: `TransformerShape.modulation`.
        alone, together = (round(share * square) for share in shape.modulation[:2])
        for kind, count, parts, rows, modulation in (
            ("double_blocks", shape.double, self._double(), tokens, together),
            ("single_blocks", shape.single, self._single(tokens), tokens, alone),
            ("layers", shape.joint, self._joint(tokens), tokens, together),
            ("blocks", shape.crossed, self._crossed(), self.image, together),
        ):
            block = self._block(parts, rows, modulation) if count else None
            for number in range(count):
                names = [f"{UNET_PREFIX}{kind}_{number}_{name}" for name in reversed(_NAMES[kind])]
                yield renamed(block, names)

    def _block(self, parts: list[_Part], tokens: int, modulation: int) -> Block:
        """Backward meets the parts from the last; what the earlier ones keep is alive then."""
        unit, kept, sites = tokens * self.shape.width, 0, []
        for part in parts:
            kept += part.kept
            if part.weight:
                under_way = _UNDER_WAY * unit + part.tokens * part.weight[0]
                sites.append(LayerSite(LayerOp(part.weight), (part.tokens, part.weight[1]), kept + under_way))
        # The sums of attention's softmax, and two values a norm: of the stream twice, of queries and keys.
        rows = tokens * (3 * self.shape.heads + 4)
        return Block(tuple(reversed(sites)), unit, kept, rows, recomputable=True, frozen_weights=modulation)

    def _joint_weights(self) -> int:
        width, gates = self.shape.width, 3 if self.shape.is_gated else 2
        return width * (2 * width + 2 * self.kv_width + gates * self.shape.mlp_width)

    def _double(self) -> list[_Part]:
        return [
            *(part for tokens in (self.image, self.text) for part in self._query(tokens)),
            _Part(self._attended(self.image + self.text)),
            *(part for tokens in (self.image, self.text) for part in self._after_attention(tokens)),
        ]

    def _query(self, tokens: int) -> list[_Part]:
        """Norm, modulation, and q, k, v as one layer."""
        width, unit = self.shape.width, tokens * self.shape.width
        return [_Part(2 * unit, (width + 2 * self.kv_width, width), tokens), _Part(unit + 2 * tokens * self.kv_width)]

    def _attended(self, tokens: int) -> int:
        """q, k, v by heads, with keys and values repeated for the heads that share them, and the result."""
        return 4 * tokens * self.shape.width

    def _after_attention(self, tokens: int) -> list[_Part]:
        """The projection, norm and modulation, and the feed-forward part."""
        width = self.shape.width
        return [_Part(0, (width, width), tokens), *self._feed_forward(tokens, fused=True)]

    def _feed_forward(self, tokens: int, *, fused: bool) -> list[_Part]:
        """Norm, modulation, up, activation and down. `fused`: gate and up are one layer, else two."""
        shape, width, inner = self.shape, self.shape.width, self.shape.mlp_width
        norm = 2 * tokens * width
        if not shape.is_gated:
            return [_Part(norm, (inner, width), tokens), _Part(2 * tokens * inner, (width, inner), tokens)]
        # Gate, up, the activation of the gate, and their product.
        up = [_Part(norm, (2 * inner, width), tokens)] if fused else [
            _Part(norm, (inner, width), tokens), _Part(0, (inner, width), tokens)
        ]  # fmt: skip
        return [*up, _Part(4 * tokens * inner, (width, inner), tokens)]

    def _single(self, tokens: int) -> list[_Part]:
        """Attention and the feed-forward part beside one another, from one layer and into one."""
        shape, width, unit = self.shape, self.shape.width, tokens * self.shape.width
        inner = shape.mlp_width * (2 if shape.is_gated else 1)
        before = 3 * width + inner
        # The product with a gate keeps the gate's activation.
        activated = shape.mlp_width if shape.is_gated else 0
        return [
            _Part(2 * unit, (before, width), tokens),
            _Part(tokens * before + self._attended(tokens) + tokens * activated),
            _Part(unit + tokens * shape.mlp_width, (width, width + shape.mlp_width), tokens),
        ]

    def _joint(self, tokens: int) -> list[_Part]:
        """Norms before and after each branch; q, k, v are one layer, the feed-forward part is gated.

        The norm behind a branch keeps the branch's result.
        """
        width, unit = self.shape.width, tokens * self.shape.width
        return [
            *self._query(tokens),
            _Part(self._attended(tokens)),
            _Part(0, (width, width), tokens),
            _Part(unit),
            *self._feed_forward(tokens, fused=False),
            _Part(unit),
        ]

    def _crossed(self) -> list[_Part]:
        """Attention of the image to itself, then to the text, then the feed-forward part."""
        shape, width, tokens = self.shape, self.shape.width, self.image
        unit, side = tokens * width, (width, width)
        cross = (width, shape.context_dim)
        return [
            _Part(3 * unit, side, tokens), _Part(unit, side, tokens), _Part(unit, side, tokens),
            _Part(unit + self._attended(tokens)), _Part(unit, side, tokens), _Part(unit),
            _Part(3 * unit, side, tokens), _Part(self.text * shape.context_dim, cross, self.text),
            _Part(0, cross, self.text), _Part(3 * unit + 4 * self.text * width), _Part(unit, side, tokens),
            _Part(unit), *self._feed_forward(tokens, fused=True), _Part(unit),
        ]  # fmt: skip
