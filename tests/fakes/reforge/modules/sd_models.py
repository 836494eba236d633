"""The model that is held: another file is another model."""

import threading
import traceback

from ldm_patched.modules import model_management
from modules_forge import forge_loader

from modules import shared
from modules.sd_models_files import checkpoint_aliases, checkpoints_list, list_models, select_checkpoint  # noqa: F401


class SdModelData:
    def __init__(self):
        self.sd_model, self.loaded_sd_models, self.was_loaded_at_least_once = None, [], False
        self.lock = threading.Lock()

    def get_sd_model(self):
        with self.lock:
            if not (self.sd_model or self.was_loaded_at_least_once):
                try:
                    load_model()
                except Exception:  # noqa: BLE001
                    traceback.print_exc()
        return self.sd_model


model_data = SdModelData()


def load_model(checkpoint_info=None):
    info = checkpoint_info or select_checkpoint()
    held = model_data.sd_model
    if held is not None and held.filename == info.filename:
        return held
    model_data.sd_model, model_data.loaded_sd_models = None, []
    model_management.unload_all_models()
    info.calculate_shorthash()
    model = forge_loader.load_model_for_a1111(info)
    model.filename = model.sd_model_checkpoint = info.filename
    model.sd_checkpoint_info = info
    shared.opts.sd_model_checkpoint = info.title
    model_data.sd_model, model_data.loaded_sd_models, model_data.was_loaded_at_least_once = model, [model], True
    return model


def reload_model_weights(sd_model=None, info=None, forced_reload=False):
    return load_model(info)


def unload_model_weights(sd_model=None, info=None):
    """Moves all of it with one call, past what else moves models."""
    model_data.sd_model.to("cpu")
