"""Which kind of model a file holds, and how such a model is made.

The real configurations are YAML files. Here they are names; a file beside a checkpoint names one as well.
"""

import os

from ldm.models import autoencoder
from ldm.models.diffusion.ddpm import LatentDiffusion
from ldm.modules.diffusionmodules.openaimodel import UNetModel
from ldm.modules.encoders import modules as encoders

# Two channels in a group: the norm of a single one would cancel what the time embedding adds. As in the real ones, the
# lowest level of SD 1's and 2's is without attention.
_UNET = {
    "in_channels": 4, "out_channels": 4, "model_channels": 64, "num_res_blocks": 1, "channel_mult": [1, 2],
    "transformer_depth": [1, 0], "middle_depth": 1, "context_dim": 16,
}  # fmt: skip
_LINEAR = {"use_linear_in_transformer": True, "num_head_channels": 64}


def sd1(in_channels=4):
    unet = UNetModel(**{**_UNET, "in_channels": in_channels, "num_heads": 8})
    return LatentDiffusion("SD1", unet, autoencoder.AutoencoderKL(), encoders.FrozenCLIPEmbedder())


def sd2(parameterization="eps"):
    unet = UNetModel(**_UNET, **_LINEAR)
    text = encoders.FrozenOpenCLIPEmbedder()
    return LatentDiffusion("SD2", unet, autoencoder.AutoencoderKL(), text, parameterization)


def sdxl():
    from sgm.models.autoencoder import AutoencoderKLInferenceWrapper
    from sgm.models.diffusion import DiffusionEngine
    from sgm.modules.diffusionmodules import openaimodel
    from sgm.modules.encoders import modules as sgm_encoders

    unet = openaimodel.UNetModel(
        **{
            **_UNET, **_LINEAR, "transformer_depth": [0, 2], "middle_depth": 2, "context_dim": 16 + 24,
            "adm_in_channels": 24 + 6 * 256,
        }
    )  # fmt: skip
    texts = [sgm_encoders.FrozenCLIPEmbedder(layer_idx=2), sgm_encoders.FrozenOpenCLIPEmbedder2()]
    sizes = [sgm_encoders.ConcatTimestepEmbedderND(256) for _ in range(3)]
    conditioner = sgm_encoders.GeneralConditioner([*texts, *sizes])
    return DiffusionEngine(unet, AutoencoderKLInferenceWrapper(), conditioner)


def sd3():
    from modules.models.sd3.sd3_model import SD3Inferencer

    return SD3Inferencer()


CONFIGS = {
    "v1-inference": sd1,
    "v1-inpainting-inference": lambda: sd1(9),
    "v2-inference": sd2,
    "v2-inference-v": lambda: sd2("v"),
    "sd_xl_base": sdxl,
    "sd3-inference": sd3,
}


def find_checkpoint_config(state_dict, info):
    beside = f"{os.path.splitext(info.filename)[0]}.yaml"
    if os.path.exists(beside):
        return beside
    if "model.diffusion_model.x_embedder.proj.weight" in state_dict:
        return "sd3-inference"
    if "conditioner.embedders.1.model.ln_final.weight" in state_dict:
        return "sd_xl_base"
    if "cond_stage_model.model.transformer.resblocks.0.attn.in_proj_weight" in state_dict:
        return "v2-inference"
    channels = state_dict["model.diffusion_model.input_blocks.0.0.weight"].shape[1]
    return "v1-inpainting-inference" if channels == 9 else "v1-inference"


def make_model(config):
    if os.path.exists(config):
        with open(config, encoding="utf8") as file:
            config = file.read().strip()
    return CONFIGS[config]()
