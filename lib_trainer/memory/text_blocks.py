"""The text encoders as stretches, for runs that train them too."""

from __future__ import annotations

from collections.abc import Iterator

from lib_trainer.adapter.kernels.autograd import LayerOp
from lib_trainer.memory.unet_blocks import Block, LayerSite
from lib_trainer.models.families import Family

_TOKENS, _VOCABULARY = 77, 49408


def text_stretches(family: Family) -> Iterator[Block]:
    """Every layer of every text encoder, for one picture with one chunk of text, in the order of forward."""
    for width, layers in family.text_encoders:
        yield Block((), 0, 0, lean=False, other_weights=(_VOCABULARY + _TOKENS) * width)
        for _ in range(layers):
            yield _layer(width)


def _layer(width: int) -> Block:
    """Self-attention and an MLP four times as wide, each behind a norm."""
    unit, tokens = _TOKENS * width, (_TOKENS, width)
    side = LayerOp((width, width))
    # Norm 1 and 2: their input and output; q, k, v and the result; the MLP before and after its activation.
    kept = 2 * 2 * unit + 4 * unit + 2 * 4 * unit
    stages = (
        LayerSite(LayerOp((width, 4 * width)), (_TOKENS, 4 * width), kept),
        LayerSite(LayerOp((4 * width, width)), tokens, kept - 4 * unit),
        *(LayerSite(side, tokens, 6 * unit) for _ in range(4)),
    )
    return Block(stages, kept, kept, lean=False)
