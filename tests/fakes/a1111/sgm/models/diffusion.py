import torch
from torch import nn

from ldm.models.diffusion.ddpm import legacy_alphas_cumprod
from modules import shared
from sgm.modules.diffusionmodules.wrappers import OpenAIWrapper


class DiffusionEngine(nn.Module):
    """SDXL, with what the WebUI adds so that it looks like a model of SD 1 to everything else."""

    kind, parameterization, scale_factor = "SDXL", "eps", 0.13025

    def __init__(self, unet, first_stage, conditioner):
        super().__init__()
        self.model, self.conditioner = OpenAIWrapper(unet), conditioner
        self.first_stage_model = first_stage.eval().requires_grad_(False)
        # No buffer: it is not saved, and keeps its numbers where the weights are stored in others.
        self.alphas_cumprod = legacy_alphas_cumprod()

    def get_learned_conditioning(self, prompts):
        height, width = getattr(prompts, "height", 1024), getattr(prompts, "width", 1024)
        asked = {"txt": prompts}
        for key, sizes in (
            ("original_size_as_tuple", (height, width)),
            ("crop_coords_top_left", (shared.opts.sdxl_crop_top, shared.opts.sdxl_crop_left)),
            ("target_size_as_tuple", (height, width)),
        ):
            asked[key] = torch.tensor([sizes] * len(prompts), dtype=torch.float32)
        # An empty negative prompt means nothing at all.
        nothing = getattr(prompts, "is_negative_prompt", False) and not any(prompts)
        return self.conditioner(asked, force_zero_embeddings=["txt"] if nothing else [])

    def apply_model(self, x, t, cond):
        return self.model(x, t, cond)

    def encode_first_stage(self, x):
        with torch.no_grad():
            return self.first_stage_model.encode(x) * self.scale_factor

    def get_first_stage_encoding(self, x):
        """It is one already."""
        return x

    def decode_first_stage(self, z):
        with torch.no_grad():
            return self.first_stage_model.decode(z / self.scale_factor)
