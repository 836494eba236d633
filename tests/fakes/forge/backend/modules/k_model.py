import torch

from backend.modules.k_prediction import Prediction


class KModel(torch.nn.Module):
    def __init__(self, model, diffusers_scheduler, k_predictor=None, config=None):
        super().__init__()
        self.config = config
        self.storage_dtype, self.computation_dtype = model.storage_dtype, model.computation_dtype
        self.diffusion_model = model
        self.predictor = k_predictor or Prediction(**diffusers_scheduler)

    def apply_model(self, x, t, c_concat=None, c_crossattn=None, control=None, transformer_options={}, **kwargs):
        dtype = self.computation_dtype
        xc = self.predictor.calculate_input(t, x).to(dtype)
        steps = self.predictor.timestep(t).float()
        extra = {name: value.to(dtype) for name, value in kwargs.items()}
        output = self.diffusion_model(
            xc, steps, context=c_crossattn.to(dtype), transformer_options=transformer_options, **extra
        )
        return self.predictor.calculate_denoised(t, output.float(), x)
