"""The UNet with its schedule, whose class is put together of what it predicts and how its noise levels go."""

from types import SimpleNamespace

import torch
from ldm_patched.modules import model_sampling


class BaseModel(torch.nn.Module):
    manual_cast_dtype = torch.float32

    def __init__(self, unet, sampling, scale):
        super().__init__()
        self.diffusion_model, self.model_sampling = unet, sampling
        latents = SimpleNamespace(process_in=lambda z: z * scale, process_out=lambda z: z / scale)
        self.model_config = SimpleNamespace(latent_format=latents)

    def apply_model(self, x, t, c_concat=None, c_crossattn=None, control=None, transformer_options={}, **kwargs):  # noqa: B006
        given, steps = self.model_sampling.calculate_input(t, x), self.model_sampling.timestep(t).float()
        found = self.diffusion_model(
            given, steps, context=c_crossattn, control=control, transformer_options=transformer_options, **kwargs
        )
        return self.model_sampling.calculate_denoised(t, found.float(), x)


def sampling_of(prediction):
    class ModelSampling(model_sampling.ModelSamplingDiscrete, getattr(model_sampling, prediction)):
        pass

    return ModelSampling()
