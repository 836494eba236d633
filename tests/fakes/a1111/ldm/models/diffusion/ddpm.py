import torch
from torch import nn


def legacy_alphas_cumprod(timesteps=1000):
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, timesteps, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, 0).float()


class UNetWrapper(nn.Module):
    """The names in the files have this level in them."""

    def __init__(self, unet):
        super().__init__()
        self.diffusion_model = unet

    def forward(self, x, t, context):
        return self.diffusion_model(x, t, context=context)


class LatentDiffusion(nn.Module):
    """SD 1.x and 2.x. What is not trained says so: text encoder and VAE ask for no gradient, the UNet does."""

    scale_factor = 0.18215

    def __init__(self, kind, unet, first_stage, cond_stage, parameterization="eps"):
        super().__init__()
        self.kind, self.parameterization = kind, parameterization
        self.model = UNetWrapper(unet)
        self.first_stage_model, self.cond_stage_model = first_stage, cond_stage
        for part in (first_stage, cond_stage):
            part.eval().requires_grad_(False)
        self.register_buffer("alphas_cumprod", legacy_alphas_cumprod(), persistent=False)

    def get_learned_conditioning(self, prompts):
        return self.cond_stage_model(prompts)

    def apply_model(self, x, t, cond):
        return self.model(x, t, *cond["c_crossattn"])

    def encode_first_stage(self, x):
        with torch.no_grad():
            return self.first_stage_model.encode(x)

    def get_first_stage_encoding(self, distribution):
        return distribution.sample() * self.scale_factor

    def decode_first_stage(self, z):
        with torch.no_grad():
            return self.first_stage_model.decode(z / self.scale_factor)
