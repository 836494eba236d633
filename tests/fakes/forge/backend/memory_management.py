"""Moves models. There is no device here, so a move makes new storage under the autograd mode of whoever asks, as a
move to a GPU does."""

import torch

cpu = torch.device("cpu")
current_loaded_models = []
OOM_EXCEPTION = torch.cuda.OutOfMemoryError


class LoadedModel:
    def __init__(self, model):
        self.model = model

    def model_load(self):
        _move(self.model.model)
        self.model.current_device = self.model.load_device
        self.model.refresh_loras()

    def model_unload(self, avoid_model_moving=False):
        if not avoid_model_moving:
            _move(self.model.model)
            self.model.current_device = self.model.offload_device

    def __eq__(self, other):
        return self.model is other.model


def _move(module):
    for parameter in module.parameters():
        parameter.data = parameter.data.clone()


def get_torch_device():
    return cpu


def is_device_cpu(device):
    return device.type == "cpu"


def get_free_memory(dev=None, torch_free_too=False):
    return 6 * 2**30


def get_total_memory(dev=None, torch_total_too=False):
    return 8 * 2**30


def soft_empty_cache(force=False):
    pass


def free_memory(memory_required, device, keep_loaded=[], free_all=False):
    for loaded in list(current_loaded_models):
        if loaded not in keep_loaded:
            current_loaded_models.remove(loaded)
            loaded.model_unload()


def unload_all_models():
    free_memory(1e30, get_torch_device(), free_all=True)


def load_models_gpu(models, memory_required=0, hard_memory_preservation=0):
    for patcher in models:
        if any(loaded.model is patcher for loaded in current_loaded_models):
            continue
        for loaded in [item for item in current_loaded_models if item.model.is_clone(patcher)]:
            current_loaded_models.remove(loaded)
            loaded.model_unload(avoid_model_moving=True)
        loaded = LoadedModel(patcher)
        loaded.model_load()
        current_loaded_models.insert(0, loaded)


def load_model_gpu(model):
    return load_models_gpu([model])
