import torch

from tests.fakes.tiny_vae import DiagonalGaussianDistribution, TinyVae  # noqa: F401 - found here


class IntegratedAutoencoderKL(TinyVae):
    """Always a sample: nothing can be asked of the posterior."""

    quant_conv = None

    def encode(self, x):
        return self.posterior(x).sample()


class WanVAE(TinyVae):
    """Of videos (B, 3, T, H, W), here without anything between frames; always the posterior's mean."""

    is_wan = True

    def encode(self, x):
        return torch.stack([self.posterior(frame).mean for frame in x.unbind(2)], dim=2)

    def decode(self, z):
        return torch.stack([super(WanVAE, self).decode(frame) for frame in z.unbind(2)], dim=2)
