from ldm_patched.ldm.modules.diffusionmodules import openaimodel
from torch import nn

# Cast as all other layers are.
openaimodel.normalization = lambda channels: nn.GroupNorm(32, channels)
Timestep = openaimodel.Timestep


class UNetModel(openaimodel.UNetModel):
    def forward(self, x, timesteps=None, context=None, y=None, control=None, transformer_options={}, **kwargs):  # noqa: B006
        # Whoever hands over none shares one dictionary with all others who do not.
        transformer_options["original_shape"] = list(x.shape)
        return super().forward(x, timesteps, context=context, y=y)
