"""A transformer of Z-Image's layout: one stream, time counted backwards, and the answer negated."""

import torch
from backend.attention import attention_function
from backend.nn.flux import apply_rope
from torch import nn

from tests.fakes.tiny_flux import turns_of


class JointAttention(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)

    def forward(self, x, turns):
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        q, k = apply_rope(q, k, turns)
        return self.out(attention_function(q, k, v, 2))


class FeedForward(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.w1, self.w3 = nn.Linear(width, 2 * width, bias=False), nn.Linear(width, 2 * width, bias=False)
        self.w2 = nn.Linear(2 * width, width, bias=False)

    def forward(self, x):
        return self.w2(nn.functional.silu(self.w1(x)) * self.w3(x))


class JointTransformerBlock(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.attention, self.feed_forward = JointAttention(width), FeedForward(width)
        self.adaLN_modulation = nn.Sequential(nn.Linear(width, 2 * width))
        self.attention_norm, self.ffn_norm = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x, turns, adaln_input):
        scale, gate = self.adaLN_modulation(adaln_input)[:, None].chunk(2, dim=-1)
        x = x + gate.tanh() * self.attention(self.attention_norm(x) * (1 + scale), turns)
        return x + self.feed_forward(self.ffn_norm(x))


class NextDiT(nn.Module):
    def __init__(self, width, context_dim):
        super().__init__()
        self.width = width
        self.x_embedder, self.cap_embedder = nn.Linear(64, width), nn.Linear(context_dim, width)
        self.t_embedder = nn.Linear(1, width)
        self.context_refiner = nn.ModuleList([JointTransformerBlock(width)])
        self.layers = nn.ModuleList(JointTransformerBlock(width) for _ in range(2))
        self.norm_final, self.final_layer = nn.LayerNorm(width, elementwise_affine=False), nn.Linear(width, 64)

    def forward(self, x, timesteps, context, transformer_options=None, **kwargs):
        rows, columns = x.shape[2], x.shape[3]
        t = self.t_embedder(1 - timesteps[:, None].to(x))
        text, picture = (
            self.cap_embedder(context),
            self.x_embedder(nn.functional.unfold(x, 2, stride=2).transpose(1, 2)),
        )
        turns = turns_of(torch.arange(text.shape[1] + picture.shape[1], device=x.device), self.width)
        for layer in self.context_refiner:
            text = layer(text, turns[: text.shape[1]], t)
        joined = torch.cat((text, picture), dim=1)
        for layer in self.layers:
            joined = layer(joined, turns, t)
        out = self.final_layer(self.norm_final(joined[:, text.shape[1] :]))
        return -nn.functional.fold(out.transpose(1, 2), (rows, columns), 2, stride=2)
