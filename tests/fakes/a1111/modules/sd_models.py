"""The one model that is held, and the checkpoints that are written into it."""

import enum
import threading
import traceback

import torch
from safetensors.torch import load_file

from modules import devices, lowvram, script_callbacks, sd_hijack, sd_models_config, sd_vae, shared
from modules.sd_models_files import checkpoint_aliases, checkpoints_list, list_models, select_checkpoint  # noqa: F401

ModelType = enum.Enum("ModelType", ["SD1", "SD2", "SDXL", "SD3"])
read_state_dict = load_file


class SdModelData:
    def __init__(self):
        self.sd_model, self.loaded_sd_models, self.was_loaded_at_least_once = None, [], False
        self.lock = threading.Lock()

    def get_sd_model(self):
        """Loads what is selected, but only the first time; None where that fails."""
        with self.lock:
            if not (self.sd_model or self.was_loaded_at_least_once):
                try:
                    load_model()
                except Exception:  # noqa: BLE001
                    traceback.print_exc()
        return self.sd_model

    def drop(self):
        if self.sd_model is not None:
            send_model_to_trash(self.sd_model)
        self.sd_model, self.loaded_sd_models = None, []

    def put(self, checkpoint):
        """Over the weights of the model that is held, where it is of the checkpoint's kind; else into a new one."""
        checkpoint.calculate_shorthash()
        tensors = read_state_dict(checkpoint.filename)
        kind = sd_models_config.find_checkpoint_config(tensors, checkpoint)
        if self.sd_model is not None and self.sd_model.used_config == kind:
            # Under the WebUI's own parts, no weight has the name that it has in a file.
            send_model_to_cpu(self.sd_model)
            sd_hijack.model_hijack.undo_hijack(self.sd_model)
        else:
            self.drop()
            self.sd_model = sd_models_config.make_model(kind).eval()
            self.sd_model.used_config = kind
        _write(self.sd_model, checkpoint, tensors)
        self.loaded_sd_models, self.was_loaded_at_least_once = [self.sd_model], True
        send_model_to_device(self.sd_model)
        sd_hijack.model_hijack.hijack(self.sd_model)
        script_callbacks.model_loaded_callback(self.sd_model)
        return self.sd_model


model_data = SdModelData()


def _write(model, checkpoint, tensors):
    """Into the very tensors that the model has."""
    if devices.fp8:
        # All of it is made half precision, and not only what has eight bits.
        model.half()
    model.load_state_dict(tensors, strict=False)
    model.float()
    model.alphas_cumprod_original = model.alphas_cumprod
    devices.fp8 = _wants_eight_bits()
    if devices.fp8:
        text = model.conditioner if hasattr(model, "conditioner") else model.cond_stage_model
        for layer in [*model.model.modules(), *text.modules()]:
            if isinstance(layer, (torch.nn.Conv2d, torch.nn.Linear)):
                layer.to(torch.float8_e4m3fn)
    model.model_type = ModelType[model.kind]
    model.is_sd1, model.is_sdxl, model.is_sd3 = (model.kind == kind for kind in ("SD1", "SDXL", "SD3"))
    model.sd_checkpoint_info, model.sd_model_checkpoint = checkpoint, checkpoint.filename
    # The choice is from now on called by its title, with the hash in it.
    shared.opts.sd_model_checkpoint = checkpoint.title
    sd_vae.loaded_vae_file = None


def _wants_eight_bits():
    return shared.opts.fp8_storage == "Enable"


def apply_alpha_schedule_override(sd_model, p=None):
    """The schedule is made anew for every picture, from the one that was loaded."""
    sd_model.alphas_cumprod = sd_model.alphas_cumprod_original.clone()


def load_model(checkpoint_info=None):
    """Anew, even where a model of that kind is held."""
    model_data.drop()
    return model_data.put(checkpoint_info or select_checkpoint())


def reload_model_weights(sd_model=None, info=None, forced_reload=False):
    """What is selected now, if the model does not hold it in that form already."""
    checkpoint, held = info or select_checkpoint(), model_data.sd_model
    wanted = checkpoint.filename, _wants_eight_bits()
    if held is None or forced_reload or (held.sd_model_checkpoint, devices.fp8) != wanted:
        held = model_data.put(checkpoint)
    return held


def unload_model_weights(sd_model=None, info=None):
    send_model_to_cpu(shared.sd_model)


def send_model_to_cpu(m):
    lowvram.send_everything_to_cpu()
    m.to(devices.cpu)


def send_model_to_device(m):
    lowvram.apply(m)
    # With hooks in it, all of it lies off the device until they are called.
    m.to(devices.cpu if m.lowvram else devices.device)


def send_model_to_trash(m):
    m.to("meta")
