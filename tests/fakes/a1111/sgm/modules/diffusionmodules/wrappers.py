from torch import nn


class OpenAIWrapper(nn.Module):
    def __init__(self, unet):
        super().__init__()
        self.diffusion_model = unet

    def forward(self, x, t, cond):
        return self.diffusion_model(x, timesteps=t, context=cond["crossattn"], y=cond["vector"])
