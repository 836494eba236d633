"""Neo's Flux adds in place, and its rotary embedding has no gradient."""

from backend.attention import attention_function

from tests.fakes import tiny_flux


def apply_rope(q, k, turns):
    assert not q.requires_grad, "no gradient for comfy_kitchen::apply_rope"
    return tiny_flux.apply_rope(q, k, turns)


def attention(q, k, v, turns, heads):
    q, k = apply_rope(q, k, turns)
    return attention_function(q, k, v, heads)


class DoubleStreamBlock(tiny_flux.DoubleStreamBlock):
    in_place, attend = True, staticmethod(attention)


class SingleStreamBlock(tiny_flux.SingleStreamBlock):
    in_place, attend = True, staticmethod(attention)


class IntegratedFluxTransformer2DModel(tiny_flux.FluxTransformer):
    double_block, single_block = DoubleStreamBlock, SingleStreamBlock
