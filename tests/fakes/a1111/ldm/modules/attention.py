from torch import nn

from .diffusionmodules.util import checkpoint


class GatedLinear(nn.Module):
    def __init__(self, width, inner):
        super().__init__()
        self.proj = nn.Linear(width, 2 * inner)

    def forward(self, x):
        value, gate = self.proj(x).unflatten(-1, (2, -1)).unbind(-2)
        return nn.functional.gelu(gate) * value


class FeedForward(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.net = nn.Sequential(GatedLinear(width, 4 * width), nn.Identity(), nn.Linear(4 * width, width))

    def forward(self, x):
        return self.net(x)


class CrossAttention(nn.Module):
    """How it computes is put in here by the WebUI, when a model is loaded."""

    def __init__(self, width, seen, heads, head_width):
        super().__init__()
        self.heads, self.scale, inner = heads, head_width**-0.5, heads * head_width
        for name, inside in (("to_q", width), ("to_k", seen), ("to_v", seen)):
            setattr(self, name, nn.Linear(inside, inner, bias=False))
        self.to_out = nn.Sequential(nn.Linear(inner, width), nn.Identity())


class BasicTransformerBlock(nn.Module):
    def __init__(self, width, heads, head_width, context_width):
        super().__init__()
        self.attn1 = CrossAttention(width, width, heads, head_width)
        self.attn2 = CrossAttention(width, context_width, heads, head_width)
        self.ff = FeedForward(width)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.checkpoint = False

    def forward(self, x, context=None):
        given, weights = (x, context), self.parameters()
        return checkpoint(self._layers, given, weights, self.checkpoint)

    def _layers(self, x, context):
        x = x + self.attn1(self.norm1(x))
        x = x + self.attn2(self.norm2(x), context)
        return x + self.ff(self.norm3(x))


class SpatialTransformer(nn.Module):
    def __init__(self, width, heads, head_width, depth, context_width, linear):
        super().__init__()
        self.norm, inner = nn.GroupNorm(32, width, eps=1e-6), heads * head_width
        self.proj_in, self.proj_out = (
            nn.Linear(inside, out) if linear else nn.Conv2d(inside, out, 1)
            for inside, out in ((width, inner), (inner, width))
        )
        blocks = (BasicTransformerBlock(inner, heads, head_width, context_width) for _ in range(depth))
        self.transformer_blocks = nn.ModuleList(blocks)

    def forward(self, x, context=None):
        size = x.shape[2:]
        rows = _rows(_at_each_place(self.proj_in, self.norm(x)))
        for block in self.transformer_blocks:
            rows = block(rows, context=context)
        return x + _at_each_place(self.proj_out, _picture(rows, size))


def _rows(picture):
    return picture.flatten(2).transpose(1, 2)


def _picture(rows, size):
    return rows.transpose(1, 2).unflatten(2, size).contiguous()


def _at_each_place(layer, picture):
    """Either a convolution or a linear layer, which wants the places in rows."""
    return layer(picture) if isinstance(layer, nn.Conv2d) else _picture(layer(_rows(picture)), picture.shape[2:])
