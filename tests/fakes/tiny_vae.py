"""An autoencoder of a few layers, for Forge and Neo."""

import torch
from torch import nn


class DiagonalGaussianDistribution:
    def __init__(self, parameters, deterministic=False):
        self.mean, self.logvar = parameters.chunk(2, dim=1)

    def sample(self):
        return self.mean + (0.5 * self.logvar).exp() * torch.randn(self.mean.shape)

    def mode(self):
        return self.mean


class TinyVae(nn.Module):
    def __init__(self, latent_channels, scaling_factor, side=8):
        super().__init__()
        self.latent_channels, self.scaling_factor, self.shift_factor = latent_channels, scaling_factor, 0.0
        self.encoder = nn.Sequential(
            nn.Conv2d(3, 16, side, stride=side), nn.SiLU(), nn.Conv2d(16, 2 * latent_channels, 1)
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(latent_channels, 16, 3, padding=1), nn.SiLU(), nn.Upsample(scale_factor=side), nn.Conv2d(16, 3, 1)
        )

    def posterior(self, x):
        return DiagonalGaussianDistribution(self.encoder(x))

    def decode(self, z):
        return self.decoder(z)

    def process_in(self, latent):
        return (latent - self.shift_factor) * self.scaling_factor

    def process_out(self, latent):
        return latent / self.scaling_factor + self.shift_factor
