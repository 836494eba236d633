"""How Forge takes LoRAs into the weights of a model, and out again."""

import torch
from tests.fakes.lora_merging import (  # noqa: F401 - found here
    load_lora,
    merge_lora_to_weight,
    model_lora_keys_clip,
    model_lora_keys_unet,
)


class LoraLoader:
    def __init__(self, model):
        self.model, self.backup, self.online_backup, self.loaded_hash = model, {}, [], str([])

    @torch.inference_mode()
    def refresh(self, lora_patches, offload_device=torch.device("cpu"), force_refresh=False):
        hashes = str(list(lora_patches.keys()))
        if hashes == self.loaded_hash and not force_refresh:
            return
        for layer in set(self.online_backup):
            del layer.forge_online_loras
        for key, weight in self.backup.items():
            self._put(key, weight)
        self.backup, self.online_backup = {}, []
        wanted = {}
        for (*_, online), patches in lora_patches.items():
            for key, found in patches.items():
                wanted.setdefault((key, online), []).extend(found)
        for (key, online), patches in wanted.items():
            path, _, name = key.rpartition(".")
            layer = self.model.get_submodule(path)
            if online:
                if not hasattr(layer, "forge_online_loras"):
                    layer.forge_online_loras = {}
                layer.forge_online_loras[name] = patches
                self.online_backup.append(layer)
                continue
            weight = getattr(layer, name)
            self.backup.setdefault(key, weight.to(device=offload_device))
            merged = merge_lora_to_weight(patches, weight, key)
            self._put(key, torch.nn.Parameter(merged, requires_grad=False))
        self.loaded_hash = hashes

    def _put(self, key, parameter):
        path, _, name = key.rpartition(".")
        setattr(self.model.get_submodule(path), name, parameter)
