import torch
from ldm_patched.ldm.modules.diffusionmodules.model import Decoder, Encoder


class DiagonalGaussianRegularizer(torch.nn.Module):
    """Classic draws a sample; reForge takes the mean."""

    sample = True

    def forward(self, moments):
        mean, log_variance = moments.chunk(2, dim=1)
        return torch.normal(mean, (log_variance / 2).exp()) if self.sample else mean


class AutoencoderKL(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.decoder, self.regularization = Encoder(4), Decoder(4), DiagonalGaussianRegularizer()
        self.quant_conv, self.post_quant_conv = torch.nn.Conv2d(8, 8, 1), torch.nn.Conv2d(4, 4, 1)

    def encode(self, x):
        return self.regularization(self.quant_conv(self.encoder(x)))

    def decode(self, z):
        return self.decoder(self.post_quant_conv(z))
