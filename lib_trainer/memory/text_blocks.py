"""The text encoders as blocks, for runs that train them too."""

from __future__ import annotations

from collections.abc import Iterator

from lib_trainer.adapter.kernels.autograd import LayerOp
from lib_trainer.memory.unet_blocks import Block, LayerSite, renamed
from lib_trainer.models.families import SDXL, Family

# The layers of one transformer layer, in the order of backward.
_NAMES = ["mlp_fc2", "mlp_fc1", "self_attn_out_proj", "self_attn_v_proj", "self_attn_k_proj", "self_attn_q_proj"]
_TOKENS, _VOCABULARY = 77, 49408


def text_encoder_blocks(family: Family) -> Iterator[Block]:
    """Every layer of every text encoder, for one image with one chunk of 77 tokens, in the order of forward."""
    for encoder, (width, layers) in enumerate(family.text_encoders, 1):
        prefix = f"lora_te{encoder if family.key == SDXL.key else ''}_text_model_encoder_layers"
        yield Block((), 0, 0, offloadable=False, other_weights=(_VOCABULARY + _TOKENS) * width)
        for number in range(layers):
            yield renamed(_layer(width), [f"{prefix}_{number}_{name}" for name in _NAMES])


def _layer(width: int) -> Block:
    """Self-attention and an MLP four times as wide, each behind a norm."""
    unit, tokens = _TOKENS * width, (_TOKENS, width)
    side = LayerOp((width, width))
    # Input and output of both norms; q, k, v and the result; the MLP before and after its activation function.
    kept = 2 * 2 * unit + 4 * unit + 2 * 4 * unit
    sites = (
        LayerSite(LayerOp((width, 4 * width)), (_TOKENS, 4 * width), kept),
        LayerSite(LayerOp((4 * width, width)), tokens, kept - 4 * unit),
        *(LayerSite(side, tokens, 6 * unit) for _ in range(4)),
    )
    return Block(sites, kept, kept, offloadable=False)
