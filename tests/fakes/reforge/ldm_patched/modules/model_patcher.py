"""Patches of a copy, merged when it is loaded. As in Classic, each copy keeps what it has replaced for itself."""

import copy

import torch
from ldm_patched.modules import model_management
from ldm_patched.modules.lora import merge_lora_to_weight

_CPU = torch.device("cpu")


class ModelPatcher:
    def __init__(self, model):
        self.model, self.load_device, self.offload_device = model, _CPU, _CPU
        self.patches, self.backup = {}, {}

    def clone(self):
        made = type(self)(self.model)
        made.patches = {key: list(patches) for key, patches in self.patches.items()}
        return made

    def is_clone(self, other):
        return self.model is other.model

    def add_patches(self, patches, strength_patch=1.0, strength_model=1.0):
        known = self.model.state_dict()
        for key, patch in patches.items():
            if key in known:
                self.patches.setdefault(key, []).append((strength_patch, patch, strength_model))

    def patch_model(self):
        for key, patches in self.patches.items():
            weight = self._get(key)
            self.backup.setdefault(key, weight)
            self._put(key, torch.nn.Parameter(merge_lora_to_weight(patches, weight, key), requires_grad=False))

    def unpatch_model(self, device_to=None):
        for key, weight in self.backup.items():
            self._put(key, weight)
        self.backup = {}

    def _get(self, key):
        path, _, name = key.rpartition(".")
        return getattr(self.model.get_submodule(path), name)

    def _put(self, key, weight):
        path, _, name = key.rpartition(".")
        setattr(self.model.get_submodule(path), name, weight)


class CLIP:
    def __init__(self, model, tokenizer):
        self.cond_stage_model, self.tokenizer, self.patcher = model, tokenizer, ModelPatcher(model)

    def clone(self):
        made = copy.copy(self)
        made.patcher = self.patcher.clone()
        return made

    def add_patches(self, *args, **kwargs):
        return self.patcher.add_patches(*args, **kwargs)


class VAE:
    device, vae_dtype = _CPU, torch.float32

    def __init__(self, model):
        self.first_stage_model, self.patcher = model, ModelPatcher(model)

    def encode(self, pixel_samples):
        model_management.load_models_gpu([self.patcher])
        return self.first_stage_model.encode(2.0 * pixel_samples.movedim(-1, 1) - 1.0).float()

    def decode(self, samples_in):
        model_management.load_models_gpu([self.patcher])
        return ((self.first_stage_model.decode(samples_in) + 1) / 2).clamp(0, 1).movedim(1, -1)
