"""ComfyUI's transformer blocks: as in Classic they add in place, and how they attend is a choice of this module."""

import torch
from torch import nn

from .diffusionmodules.util import checkpoint


def _heads(tensor, heads):
    return tensor.unflatten(2, (heads, -1)).transpose(1, 2)


def attention_pytorch(q, k, v, heads, mask=None):
    q, k, v = (_heads(tensor, heads) for tensor in (q, k, v))
    return torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def attention_sub_quad(q, k, v, heads, mask=None):
    """Keeps memory low by writing each head into one output, in place: no gradient comes through."""
    q, k, v = (_heads(tensor, heads) for tensor in (q, k, v))
    out = torch.empty_like(q)
    for head in range(heads):
        scores = q[:, head] @ k[:, head].transpose(1, 2) * q.shape[-1] ** -0.5
        scores.sub_(scores.amax(-1, keepdim=True)).exp_()
        out[:, head].copy_(scores.div_(scores.sum(-1, keepdim=True)) @ v[:, head])
    return out.transpose(1, 2).flatten(2)


optimized_attention = optimized_attention_masked = attention_sub_quad


class GEGLU(nn.Module):
    def __init__(self, width, inner):
        super().__init__()
        self.proj = nn.Linear(width, 2 * inner)

    def forward(self, x):
        x, gate = self.proj(x).chunk(2, dim=-1)
        return x * nn.functional.gelu(gate)


class FeedForward(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.net = nn.Sequential(GEGLU(width, 4 * width), nn.Identity(), nn.Linear(4 * width, width))

    def forward(self, x):
        return self.net(x)


class CrossAttention(nn.Module):
    def __init__(self, width, seen, heads, head_width):
        super().__init__()
        self.heads, inner = heads, heads * head_width
        self.to_q = nn.Linear(width, inner, bias=False)
        self.to_k, self.to_v = nn.Linear(seen, inner, bias=False), nn.Linear(seen, inner, bias=False)
        self.to_out = nn.Sequential(nn.Linear(inner, width), nn.Identity())

    def forward(self, x, context=None):
        context = x if context is None else context
        return self.to_out(optimized_attention(self.to_q(x), self.to_k(context), self.to_v(context), self.heads))


class BasicTransformerBlock(nn.Module):
    def __init__(self, width, heads, head_width, context_width):
        super().__init__()
        self.attn1 = CrossAttention(width, width, heads, head_width)
        self.attn2 = CrossAttention(width, context_width, heads, head_width)
        self.ff = FeedForward(width)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.checkpoint = False

    def forward(self, x, context=None):
        return checkpoint(self._layers, (x, context), self.parameters(), self.checkpoint)

    def _layers(self, x, context):
        x += self.attn1(self.norm1(x))
        x += self.attn2(self.norm2(x), context)
        skip, x = x, self.ff(self.norm3(x))
        x += skip
        return x


class SpatialTransformer(nn.Module):
    def __init__(self, width, heads, head_width, depth, context_width, linear):
        super().__init__()
        inner, self.linear = heads * head_width, linear
        self.norm = nn.GroupNorm(32, width, eps=1e-6)
        self.proj_in = nn.Linear(width, inner) if linear else nn.Conv2d(width, inner, 1)
        self.proj_out = nn.Linear(inner, width) if linear else nn.Conv2d(inner, width, 1)
        blocks = (BasicTransformerBlock(inner, heads, head_width, context_width) for _ in range(depth))
        self.transformer_blocks = nn.ModuleList(blocks)

    def forward(self, x, context=None):
        size, rows = x.shape[2:], self.norm(x)
        rows = rows if self.linear else self.proj_in(rows)
        rows = rows.flatten(2).transpose(1, 2).contiguous()
        rows = self.proj_in(rows) if self.linear else rows
        for block in self.transformer_blocks:
            rows = block(rows, context=context)
        rows = self.proj_out(rows) if self.linear else rows
        rows = rows.transpose(1, 2).unflatten(2, size).contiguous()
        return x + (rows if self.linear else self.proj_out(rows))
