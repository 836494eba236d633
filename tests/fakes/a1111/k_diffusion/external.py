"""A model of 1000 timesteps as a denoiser of any sigma."""

import numpy
import torch
from torch import nn


class CompVisDenoiser(nn.Module):
    def __init__(self, model, quantize=False, device="cpu"):
        super().__init__()
        self.inner_model, self.quantize = model, quantize
        self.sigmas = (1 / model.alphas_cumprod - 1).sqrt()

    def sigma_to_t(self, sigma):
        known = self.sigmas.log().cpu().numpy()
        steps = torch.from_numpy(numpy.interp(sigma.log().cpu().numpy(), known, range(len(known)))).to(sigma)
        return steps.round().long() if self.quantize else steps

    def get_scalings(self, sigma):
        """(of the noisy picture, of what the model says, of what it is given)."""
        return torch.ones_like(sigma), -sigma, (sigma**2 + 1).rsqrt()

    def forward(self, noisy, sigma, cond):
        skip, out, given = self.get_scalings(sigma.view(-1, 1, 1, 1))
        said = self.inner_model.apply_model(noisy * given, self.sigma_to_t(sigma), cond=cond)
        return noisy * skip + said * out


class CompVisVDenoiser(CompVisDenoiser):
    def get_scalings(self, sigma):
        given = (sigma**2 + 1).rsqrt()
        return given**2, -sigma * given, given
