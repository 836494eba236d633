import hashlib
import os

import torch

from backend import memory_management
from backend.args import dynamic_args
from backend.loader import forge_loader
from modules import shared

checkpoints_list = {}
checkpoint_aliases = {}


class CheckpointInfo:
    def __init__(self, filename):
        self.filename, self.name, self.sha256 = filename, os.path.basename(filename), None
        self.title = self.name

    def calculate_shorthash(self):
        with open(self.filename, "rb") as file:
            self.sha256 = hashlib.sha256(file.read()).hexdigest()
        return self.sha256[:10]


class FakeInitialModel:
    cond_stage_model = None


class SdModelData:
    def __init__(self):
        self.sd_model, self.forge_loading_parameters, self.forge_hash = FakeInitialModel(), {}, ""

    def get_sd_model(self):
        return self.sd_model

    def set_sd_model(self, v):
        self.sd_model = v


model_data = SdModelData()


def list_models():
    checkpoints_list.clear()
    for name in sorted(os.listdir(shared.cmd_opts.ckpt_dir)):
        checkpoints_list[name] = checkpoint_aliases[name] = CheckpointInfo(os.path.join(shared.cmd_opts.ckpt_dir, name))


def select_checkpoint():
    chosen = checkpoint_aliases.get(shared.opts.sd_model_checkpoint)
    return chosen or next(iter(checkpoints_list.values()), None)


@torch.inference_mode()
def forge_model_reload():
    wanted = str(model_data.forge_loading_parameters)
    if model_data.forge_hash == wanted:
        return model_data.sd_model, False
    model_data.sd_model = None
    memory_management.unload_all_models()
    info = model_data.forge_loading_parameters["checkpoint_info"]
    if info is None:
        raise ValueError("You do not have any model!")
    dynamic_args["forge_unet_storage_dtype"] = model_data.forge_loading_parameters.get("unet_storage_dtype", None)
    sd_model = forge_loader(info.filename)
    sd_model.sd_checkpoint_info = info
    sd_model.sd_model_hash = info.calculate_shorthash()
    model_data.set_sd_model(sd_model)
    model_data.forge_hash = wanted
    return sd_model, True


def unload_model_weights(sd_model=None, info=None):
    memory_management.unload_all_models()
