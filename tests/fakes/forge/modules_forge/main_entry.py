import torch

from backend.args import dynamic_args
from modules import processing, sd_models, shared

forge_unet_storage_dtype_options = {
    "Automatic": (None, False),
    "Automatic (fp16 LoRA)": (None, True),
    "bnb-nf4": ("nf4", False),
    "float8-e4m3fn": (torch.float8_e4m3fn, False),
    "float8-e4m3fn (fp16 LoRA)": (torch.float8_e4m3fn, True),
}


def refresh_model_loading_parameters():
    dtype, online = forge_unet_storage_dtype_options.get(shared.opts.forge_unet_storage_dtype, (None, False))
    dynamic_args["online_lora"] = online
    sd_models.model_data.forge_loading_parameters = {
        "checkpoint_info": sd_models.select_checkpoint(),
        "additional_modules": shared.opts.forge_additional_modules,
        "unet_storage_dtype": dtype,
    }
    processing.pending.global_unload = True
