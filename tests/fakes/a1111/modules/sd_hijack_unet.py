"""What the WebUI changes in the UNets' packages, once and for all: everything reaches a UNet in its own numbers."""

import sgm.modules.diffusionmodules.openaimodel
import torch
from torch.utils._pytree import tree_map

import ldm.models.diffusion.ddpm
import ldm.modules.diffusionmodules.openaimodel
import sgm.modules.diffusionmodules.wrappers
from modules import devices


def _cast(value):
    return value.to(devices.dtype_unet) if isinstance(value, torch.Tensor) else value


def _change(owner, name, cast_given):
    own = getattr(owner, name)

    def given(model, *args, **kwargs):
        args, kwargs = tree_map(_cast, (args, kwargs))
        with devices.autocast():
            return own(model, *args, **kwargs)

    def found(*args):
        return _cast(own(*args))

    setattr(owner, name, given if cast_given else found)


_change(ldm.models.diffusion.ddpm.LatentDiffusion, "apply_model", cast_given=True)
_change(sgm.modules.diffusionmodules.wrappers.OpenAIWrapper, "forward", cast_given=True)
_change(ldm.modules.diffusionmodules.openaimodel, "timestep_embedding", cast_given=False)
_change(sgm.modules.diffusionmodules.openaimodel, "timestep_embedding", cast_given=False)
