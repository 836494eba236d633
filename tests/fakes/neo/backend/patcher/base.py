"""Patches of a copy, merged into the weights of the model that all copies share when one of them is loaded."""

import copy
import uuid

import torch
from backend.patcher.lora import merge_lora_to_weight


class InEveryForward:
    def __init__(self, patches, key):
        self.patches, self.key = patches, key

    def __call__(self, weight):
        return merge_lora_to_weight(self.patches, weight, self.key, computation_dtype=weight.dtype)


class ModelPatcher:
    def __init__(self, model, load_device, offload_device, size=0, *, current_device=None):
        self.model, self.load_device, self.offload_device = model, load_device, offload_device
        self.patches, self.backup, self.parent = {}, {}, None
        self.patches_uuid = uuid.uuid4()
        self.model_options = {"transformer_options": {}}
        if not hasattr(model, "current_weight_patches_uuid"):
            model.current_weight_patches_uuid = None

    def clone(self):
        made = type(self)(self.model, self.load_device, self.offload_device)
        made.patches = {key: list(patches) for key, patches in self.patches.items()}
        made.patches_uuid, made.backup, made.parent = self.patches_uuid, self.backup, self
        made.model_options = copy.deepcopy(self.model_options)
        return made

    def is_clone(self, other):
        return self.model is other.model

    def add_patches(self, patches, strength_patch=1.0, strength_model=1.0, *, filename=None, online_mode=None):
        known = self.model.state_dict()
        taken = {key: patch for key, patch in patches.items() if key in known}
        for key, patch in taken.items():
            self.patches.setdefault(key, []).append((strength_patch, patch, strength_model, None, None, online_mode))
        self.patches_uuid = uuid.uuid4()
        return list(taken)

    def partially_load(self, device_to, extra_memory=0):
        if self.model.current_weight_patches_uuid == self.patches_uuid:
            return
        self.unpatch_model()
        try:
            self.load()
        except Exception:
            self.detach()
            raise

    def load(self):
        for module in self.model.modules():
            _forget_functions(module)
        for key, patches in self.patches.items():
            path, _, name = key.rpartition(".")
            layer = self.model.get_submodule(path)
            if any(patch[-1] for patch in patches):
                layer.weight_function = [InEveryForward(patches, key)]
                layer.prev_parameters_manual_cast, layer.parameters_manual_cast = layer.parameters_manual_cast, True
                continue
            weight = getattr(layer, name)
            self.backup.setdefault(key, weight)
            setattr(layer, name, torch.nn.Parameter(merge_lora_to_weight(patches, weight, key), requires_grad=False))
        self.model.current_weight_patches_uuid = self.patches_uuid

    def unpatch_model(self, device_to=None):
        """Like the real one, it leaves behind what is merged in every forward."""
        for key, weight in self.backup.items():
            path, _, name = key.rpartition(".")
            setattr(self.model.get_submodule(path), name, weight)
        self.backup.clear()
        self.model.current_weight_patches_uuid = None

    def detach(self, unpatch_all=True):
        if unpatch_all:
            self.unpatch_model()
        return self.model


def _forget_functions(module):
    if hasattr(module, "prev_parameters_manual_cast"):
        module.parameters_manual_cast = module.prev_parameters_manual_cast
        del module.prev_parameters_manual_cast
    if hasattr(module, "weight_function"):
        module.weight_function = []


class UnetPatcher(ModelPatcher):
    pass


class CLIP:
    def __init__(self, model, tokenizer, device):
        self.cond_stage_model, self.tokenizer = model, tokenizer
        self.patcher = ModelPatcher(model, device, device)

    def clone(self):
        made = copy.copy(self)
        made.patcher = self.patcher.clone()
        return made

    def add_patches(self, *args, **kwargs):
        return self.patcher.add_patches(*args, **kwargs)
