"""Moves models. There is no device here, so a move makes new storage under the autograd mode of whoever asks, as a
move to a GPU does."""

import weakref

import torch
from backend.quant_ops import QuantizedTensor

cpu = torch.device("cpu")
current_loaded_models = []


class LoadedModel:
    """Knows its patcher loosely: a copy that a prompt made may be gone, and its parent is what is loaded then."""

    def __init__(self, patcher):
        self._patcher, self._parent = weakref.ref(patcher), patcher.parent

    @property
    def model(self):
        return self._patcher() or self._parent

    def model_load(self):
        bake_gguf_model(self.model.model)
        _move(self.model.model)
        self.model.partially_load(self.model.load_device)

    def model_unload(self):
        _move(self.model.model)
        self.model.detach()


def _move(module):
    for parameter in module.parameters():
        if not isinstance(parameter, QuantizedTensor):
            parameter.data = parameter.data.clone()


def bake_gguf_model(model):
    for parameter in model.parameters():
        if getattr(parameter, "gguf_cls", None) is not None:
            parameter.gguf_cls.bake(parameter)
    return model


def get_torch_device():
    return cpu


def get_free_memory(dev=None, torch_free_too=False):
    return 6 * 2**30


def get_total_memory(dev=None, torch_total_too=False):
    return 8 * 2**30


def soft_empty_cache(force=False):
    pass


def free_memory(memory_required, device, keep_loaded=()):
    for loaded in list(current_loaded_models):
        if loaded not in keep_loaded:
            current_loaded_models.remove(loaded)
            # Of a checkpoint that another has replaced, only the entry may be left.
            if loaded.model is not None:
                loaded.model_unload()


def unload_all_models():
    free_memory(1e30, get_torch_device())


def load_models_gpu(models, memory_required=0):
    for patcher in models:
        entry = next((item for item in current_loaded_models if item.model is patcher), None)
        if entry is None:
            for other in [item for item in current_loaded_models if item.model and item.model.is_clone(patcher)]:
                current_loaded_models.remove(other)
                other.model.detach(unpatch_all=False)
            entry = LoadedModel(patcher)
            current_loaded_models.insert(0, entry)
        entry.model_load()


def load_model_gpu(model):
    return load_models_gpu([model])
