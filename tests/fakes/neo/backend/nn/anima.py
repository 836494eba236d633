"""A transformer of Anima's layout: of videos, and each block looks at the picture, then at the text."""

import torch
from backend import kitchen as ck
from backend.args import dynamic_args
from backend.attention import attention_function
from torch import nn

from tests.fakes.tiny_flux import turns_of


class SelfCrossAttention(nn.Module):
    def __init__(self, width, context_dim=None):
        super().__init__()
        self.is_own = context_dim is None
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj, self.v_proj = (nn.Linear(context_dim or width, width, bias=False) for _ in range(2))
        self.output_proj = nn.Linear(width, width, bias=False)

    def forward(self, x, context, turns):
        q, k, v = self.q_proj(x), self.k_proj(context), self.v_proj(context)
        if self.is_own:
            q, k = ck.apply_rope_split_half(q, k, turns)
        return self.output_proj(attention_function(q, k, v, 2))


class FeedForward(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.layer1, self.layer2 = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)

    def forward(self, x):
        return self.layer2(nn.functional.gelu(self.layer1(x)))


class Block(nn.Module):
    def __init__(self, width, context_dim):
        super().__init__()
        self.self_attn, self.cross_attn = SelfCrossAttention(width), SelfCrossAttention(width, context_dim)
        self.mlp = FeedForward(width)
        for part in ("self_attn", "cross_attn", "mlp"):
            self.add_module(f"layer_norm_{part}", nn.LayerNorm(width, elementwise_affine=False))
            modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 8, bias=False), nn.Linear(8, 3 * width, bias=False))
            self.add_module(f"adaln_modulation_{part}", modulation)

    def forward(self, x, vec, context, turns):
        for part in ("self_attn", "cross_attn", "mlp"):
            shift, scale, gate = getattr(self, f"adaln_modulation_{part}")(vec)[:, None].chunk(3, dim=-1)
            normed = getattr(self, f"layer_norm_{part}")(x) * (1 + scale) + shift
            seen = {"self_attn": (normed, turns), "cross_attn": (context, turns), "mlp": ()}[part]
            x = torch.addcmul(x, gate, getattr(self, part)(normed, *seen))
        return x


class Anima(nn.Module):
    def __init__(self, width, context_dim):
        super().__init__()
        self.width = width
        # One channel more, which says where a picture is filled up.
        self.x_embedder, self.t_embedder = nn.Sequential(nn.Linear(17 * 4, width, bias=False)), nn.Linear(1, width)
        self.blocks = nn.ModuleList(Block(width, context_dim) for _ in range(2))
        self.norm_final, self.final_layer = nn.LayerNorm(width, elementwise_affine=False), nn.Linear(width, 64)

    def forward(self, x, timesteps, context, **kwargs):
        batch, rows, columns = len(x), *x.shape[-2:]
        for latents in dynamic_args.ref_latents:
            x = torch.cat((x, latents.to(x)), dim=2)
        x = torch.cat([x, torch.zeros_like(x[:, :1])], dim=1).movedim(2, 1).flatten(0, 1)
        tokens = nn.functional.unfold(x, 2, stride=2).unflatten(0, (batch, -1)).movedim(2, 3).flatten(1, 2)
        tokens, vec = self.x_embedder(tokens), self.t_embedder(timesteps[:, None].to(x))
        turns = turns_of(torch.arange(tokens.shape[1], device=x.device), self.width)
        for block in self.blocks:
            tokens = block(tokens, vec, context, turns)
        out = self.final_layer(self.norm_final(tokens[:, : rows * columns // 4])).transpose(1, 2)
        return nn.functional.fold(out, (rows, columns), 2, stride=2)[:, :, None]
