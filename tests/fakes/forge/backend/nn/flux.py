from tests.fakes import tiny_flux
from tests.fakes.tiny_flux import apply_rope

from backend.attention import attention_function


def attention(q, k, v, turns, heads):
    q, k = apply_rope(q, k, turns)
    return attention_function(q, k, v, heads)


class DoubleStreamBlock(tiny_flux.DoubleStreamBlock):
    attend = staticmethod(attention)


class SingleStreamBlock(tiny_flux.SingleStreamBlock):
    attend = staticmethod(attention)


class IntegratedFluxTransformer2DModel(tiny_flux.FluxTransformer):
    double_block, single_block = DoubleStreamBlock, SingleStreamBlock
