import torch
from torch import nn


class ResidualAttentionBlock(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        # Query, key and value in one weight. All of it is handed to a function: its `out_proj` is never called.
        self.attn = nn.MultiheadAttention(width, 2)
        self.mlp = nn.Sequential()
        self.mlp.add_module("c_fc", nn.Linear(width, 2 * width))
        self.mlp.add_module("gelu", nn.GELU())
        self.mlp.add_module("c_proj", nn.Linear(2 * width, width))

    def forward(self, x, attn_mask=None):
        seen = self.ln_1(x)
        x = x + self.attn(seen, seen, seen, need_weights=False, attn_mask=attn_mask)[0]
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    def __init__(self, width, layers):
        super().__init__()
        self.resblocks = nn.ModuleList(ResidualAttentionBlock(width) for _ in range(layers))


class CLIP(nn.Module):
    """The text half of an open_clip model."""

    def __init__(self, width, layers):
        super().__init__()
        self.transformer = Transformer(width, layers)
        self.token_embedding = nn.Embedding(256, width)
        self.positional_embedding = nn.Parameter(torch.zeros(77, width))
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.zeros(width, width))
        mask = torch.full((77, 77), float("-inf")).triu_(1)
        self.register_buffer("attn_mask", mask, persistent=False)

    def layers_of(self, text):
        """What each block hands over, (B, 77, D); the blocks themselves have the tokens first."""
        x, found = (self.token_embedding(text) + self.positional_embedding).transpose(0, 1), []
        for block in self.transformer.resblocks:
            x = block(x, attn_mask=self.attn_mask)
            found.append(x.transpose(0, 1))
        return found
