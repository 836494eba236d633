import torch
from torch import nn

from ..attention import SpatialTransformer
from .util import checkpoint, normalization, timestep_embedding


def _conv(inside, out, stride=1):
    return nn.Conv2d(inside, out, 3, stride=stride, padding=1)


class Timestep(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.width = width

    def forward(self, numbers):
        return timestep_embedding(numbers, self.width)


class Upsample(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv = _conv(width, width)

    def forward(self, x):
        return self.conv(x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3))


class Downsample(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.op = _conv(width, width, stride=2)

    def forward(self, x):
        return self.op(x)


class ResBlock(nn.Module):
    def __init__(self, inside, out, times):
        super().__init__()
        self.in_layers = nn.Sequential(normalization(inside), nn.SiLU(), _conv(inside, out))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(times, out))
        self.out_layers = nn.Sequential(normalization(out), nn.SiLU(), nn.Identity(), _conv(out, out))
        self.skip_connection = nn.Identity() if inside == out else nn.Conv2d(inside, out, 1)
        self.use_checkpoint = False

    def forward(self, x, time):
        given, weights = (x, time), self.parameters()
        return checkpoint(self._layers, given, weights, self.use_checkpoint)

    def _layers(self, x, time):
        inner = self.in_layers(x)
        shift = self.emb_layers(time).to(inner.dtype)[:, :, None, None]
        return self.out_layers(inner + shift) + self.skip_connection(x)


class Block(nn.Sequential):
    """Layers of which some want to know the time, and others the text."""

    def forward(self, x, time, context):
        for layer in self:
            wanted = {ResBlock: [time], SpatialTransformer: [context]}
            x = layer(x, *wanted.get(type(layer), []))
        return x


class UNetModel(nn.Module):
    """An LDM UNet. `transformer_depth`: of each level, none where it is 0."""

    def __init__(
        self, in_channels, model_channels, out_channels, num_res_blocks, channel_mult, transformer_depth, middle_depth,
        context_dim, num_heads=None, num_head_channels=None, use_linear_in_transformer=False, adm_in_channels=None,
    ):  # fmt: skip
        super().__init__()
        self.model_channels, self.dtype, times = model_channels, torch.float32, 4 * model_channels

        def block(inside, width, depth):
            heads = num_heads or width // num_head_channels
            found = [ResBlock(inside, width, times)]
            if depth:
                shape = heads, width // heads, depth, context_dim
                found.append(SpatialTransformer(width, *shape, linear=use_linear_in_transformer))
            return found

        def embedding(inside):
            return nn.Sequential(nn.Linear(inside, times), nn.SiLU(), nn.Linear(times, times))

        self.time_embed = embedding(model_channels)
        if adm_in_channels:
            self.label_emb = nn.Sequential(embedding(adm_in_channels))
        widths = [factor * model_channels for factor in channel_mult]
        levels = list(zip(widths, transformer_depth, strict=True))
        # What goes down is kept for the way up: so many channels each.
        down, kept = [[_conv(in_channels, model_channels)]], [model_channels]
        for level, (width, depth) in enumerate(levels):
            if level:
                down.append([Downsample(kept[-1])])
                kept.append(kept[-1])
            for _ in range(num_res_blocks):
                down.append(block(kept[-1], width, depth))
                kept.append(width)
        width = kept[-1]
        middle = [*block(width, width, middle_depth), ResBlock(width, width, times)]
        up = []
        for level, (out, depth) in reversed([*enumerate(levels)]):
            for _ in range(num_res_blocks + 1):
                up.append(block(width + kept.pop(), out, depth))
                width = out
            if level:
                up[-1].append(Upsample(width))
        self.input_blocks, self.output_blocks = (nn.ModuleList(Block(*part) for part in way) for way in (down, up))
        self.middle_block = Block(*middle)
        self.out = nn.Sequential(normalization(width), nn.SiLU(), _conv(width, out_channels))

    def forward(self, x, timesteps=None, context=None, y=None):
        time = self.time_embed(timestep_embedding(timesteps, self.model_channels))
        time = time + self.label_emb(y) if hasattr(self, "label_emb") else time
        inner, kept = x.to(self.dtype), []
        for part in self.input_blocks:
            inner = part(inner, time, context)
            kept.append(inner)
        inner = self.middle_block(inner, time, context)
        for part, beside in zip(self.output_blocks, reversed(kept), strict=True):
            inner = part(torch.cat([inner, beside], dim=1), time, context)
        return self.out(inner.to(x.dtype))
