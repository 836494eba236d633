"""Moves models. There is no device here, so a move makes new storage under the autograd mode of whoever asks, as a
move to a GPU does."""

import torch

cpu = torch.device("cpu")
current_loaded_models = []


class LoadedModel:
    def __init__(self, model):
        self.model = model

    def model_load(self):
        _move(self.model.model)
        self.model.patch_model()

    def model_unload(self):
        self.model.unpatch_model()
        _move(self.model.model)


def _move(module):
    for parameter in module.parameters():
        parameter.data = parameter.data.clone()


def get_torch_device():
    return cpu


def get_offload_stream(device):
    return None


def soft_empty_cache(force=False):
    pass


def free_memory(memory_required, device, keep_loaded=()):
    while current_loaded_models:
        current_loaded_models.pop().model_unload()


def unload_all_models():
    free_memory(1e30, get_torch_device())


def load_models_gpu(models, memory_required=0):
    for patcher in models:
        if any(loaded.model is patcher for loaded in current_loaded_models):
            continue
        for other in [loaded for loaded in current_loaded_models if loaded.model.is_clone(patcher)]:
            current_loaded_models.remove(other)
            other.model_unload()
        current_loaded_models.insert(0, LoadedModel(patcher))
        current_loaded_models[0].model_load()


def load_model_gpu(model):
    return load_models_gpu([model])
