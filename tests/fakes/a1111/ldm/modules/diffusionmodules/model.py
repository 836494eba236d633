"""The VAE's halves, with the layers' real names: a file is known by them."""

from itertools import pairwise

from torch import nn

_WIDTHS = (8, 16, 16, 16)


class _Block(nn.Module):
    def __init__(self, inside, out):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(inside, out, 1), nn.Conv2d(out, out, 1)

    def forward(self, x):
        return self.conv2(nn.functional.silu(self.conv1(x)))


class _Levels(nn.Module):
    """Each level's blocks, and between two levels what halves or doubles the sides."""

    def __init__(self, widths, name, between):
        super().__init__()
        for level, (inside, out) in enumerate(pairwise(widths)):
            part = nn.Module()
            part.block = nn.ModuleList([_Block(inside, out)])
            if level < len(widths) - 2:
                setattr(part, name, nn.Module())
                getattr(part, name).conv = between(out)
            self.add_module(str(level), part)


class Encoder(nn.Module):
    def __init__(self, z_channels):
        super().__init__()
        self.conv_in = nn.Conv2d(3, 8, 1)
        self.down = _Levels((8, *_WIDTHS), "downsample", lambda width: nn.Conv2d(width, width, 2, stride=2))
        self.conv_out = nn.Conv2d(_WIDTHS[-1], 2 * z_channels, 1)

    def forward(self, x):
        h = self.conv_in(x)
        for part in self.down.children():
            h = part.block[0](h)
            h = part.downsample.conv(h) if hasattr(part, "downsample") else h
        return self.conv_out(h)


class Decoder(nn.Module):
    def __init__(self, z_channels):
        super().__init__()
        self.conv_in = nn.Conv2d(z_channels, _WIDTHS[-1], 3, padding=1)
        widths = (_WIDTHS[-1], *reversed(_WIDTHS))
        self.up = _Levels(widths, "upsample", lambda width: nn.Conv2d(width, width, 1))
        self.conv_out = nn.Conv2d(_WIDTHS[0], 3, 1)

    def forward(self, z):
        h = self.conv_in(z)
        for part in self.up.children():
            h = part.block[0](h)
            if hasattr(part, "upsample"):
                h = part.upsample.conv(nn.functional.interpolate(h, scale_factor=2))
        return self.conv_out(h)
