"""A transformer of Flux's layout, as small as can be: streams of picture and text, then both together.

A host's blocks derive from these and say how they `attend`.
"""

import torch
from torch import nn


def apply_rope(q, k, turns):
    def turned(x):
        pairs = x.unflatten(-1, (-1, 1, 2))
        return (turns[..., 0] * pairs[..., 0] + turns[..., 1] * pairs[..., 1]).flatten(-2)

    return turned(q), turned(k)


def turns_of(places, width):
    angles = places[:, None] / 100 ** (torch.arange(width // 2) / (width // 2))
    return torch.stack([angles.cos(), -angles.sin(), angles.sin(), angles.cos()], dim=-1).unflatten(-1, (2, 2))


class Modulation(nn.Module):
    def __init__(self, width, count):
        super().__init__()
        self.count, self.lin = count, nn.Linear(width, count * width)

    def forward(self, vec):
        return self.lin(nn.functional.silu(vec))[:, None].chunk(self.count, dim=-1)


class SelfAttention(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)


class DoubleStreamBlock(nn.Module):
    """Takes its streams by name, as Flux's does."""

    in_place = False

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        for stream in ("img", "txt"):
            self.add_module(f"{stream}_mod", Modulation(width, 6))
            self.add_module(f"{stream}_norm1", nn.LayerNorm(width, elementwise_affine=False))
            self.add_module(f"{stream}_norm2", nn.LayerNorm(width, elementwise_affine=False))
            self.add_module(f"{stream}_attn", SelfAttention(width))
            mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
            self.add_module(f"{stream}_mlp", mlp)

    def forward(self, img, txt, vec, pe, **kwargs):
        mods = {"txt": self.txt_mod(vec), "img": self.img_mod(vec)}
        parts = []
        for stream, x in (("txt", txt), ("img", img)):
            shift, scale = mods[stream][:2]
            normed = getattr(self, f"{stream}_norm1")(x) * (1 + scale) + shift
            parts.append(getattr(self, f"{stream}_attn").qkv(normed).chunk(3, dim=-1))
        joined = self.attend(*(torch.cat(pair, dim=1) for pair in zip(*parts, strict=True)), pe, self.heads)
        return self._after(img, joined[:, txt.shape[1] :], "img", mods), self._after(
            txt, joined[:, : txt.shape[1]], "txt", mods
        )

    def _after(self, x, attended, stream, mods):
        _, _, gate, shift, scale, gate2 = mods[stream]
        x = self.added(x, gate * getattr(self, f"{stream}_attn").proj(attended))
        normed = getattr(self, f"{stream}_norm2")(x) * (1 + scale) + shift
        return self.added(x, gate2 * getattr(self, f"{stream}_mlp")(normed))

    def added(self, x, change):
        if self.in_place:
            x += change
            return x
        return x + change


class SingleStreamBlock(nn.Module):
    in_place = False
    added = DoubleStreamBlock.added

    def __init__(self, width, heads):
        super().__init__()
        self.heads, self.width = heads, width
        self.linear1, self.linear2 = nn.Linear(width, 7 * width), nn.Linear(5 * width, width)
        self.pre_norm, self.modulation = nn.LayerNorm(width, elementwise_affine=False), Modulation(width, 3)

    def forward(self, x, vec, pe, **kwargs):
        shift, scale, gate = self.modulation(vec)
        q, k, v, mlp = self.linear1(self.pre_norm(x) * (1 + scale) + shift).split(
            [self.width] * 3 + [4 * self.width], -1
        )
        attended = self.attend(q, k, v, pe, self.heads)
        return self.added(x, gate * self.linear2(torch.cat([attended, nn.functional.gelu(mlp)], dim=-1)))


class FluxTransformer(nn.Module):
    """`double_block` and `single_block` are the host's; without pooled text and guidance it is Chroma's or Klein's."""

    def __init__(self, width, context_dim, pooled_dim=0, channels=16, patch=2):
        super().__init__()
        self.width, self.patch, self.guidance_embed = width, patch, pooled_dim > 0
        self.img_in, self.txt_in = nn.Linear(channels * patch**2, width), nn.Linear(context_dim, width)
        self.time_in = nn.Linear(1, width)
        if self.guidance_embed:
            self.guidance_in, self.vector_in = nn.Linear(1, width), nn.Linear(pooled_dim, width)
        self.double_blocks = nn.ModuleList(self.double_block(width, 2) for _ in range(2))
        self.single_blocks = nn.ModuleList(self.single_block(width, 2) for _ in range(2))
        self.norm_final = nn.LayerNorm(width, elementwise_affine=False)
        self.final_layer = nn.Linear(width, channels * patch**2)

    def forward(self, x, timestep, context, y=None, guidance=None, transformer_options=None, **kwargs):
        img = self.img_in(nn.functional.unfold(x, self.patch, stride=self.patch).transpose(1, 2))
        txt = self.txt_in(context)
        vec = self.time_in(timestep[:, None].to(x))
        if self.guidance_embed:
            if guidance is None:
                raise ValueError("Didn't get guidance strength for guidance distilled model.")
            vec = vec + self.guidance_in(guidance[:, None].to(x)) + self.vector_in(y)
        pe = turns_of(torch.arange(txt.shape[1] + img.shape[1], device=x.device), self.width)
        for block in self.double_blocks:
            img, txt = block(img=img, txt=txt, vec=vec, pe=pe)
        img = torch.cat((txt, img), 1)
        for block in self.single_blocks:
            img = block(img, vec=vec, pe=pe)
        out = self.final_layer(self.norm_final(img[:, txt.shape[1] :]))
        return nn.functional.fold(out.transpose(1, 2), x.shape[2:], self.patch, stride=self.patch)
