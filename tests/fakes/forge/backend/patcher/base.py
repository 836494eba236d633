import copy

from backend.patcher.lora import LoraLoader


class ModelPatcher:
    def __init__(self, model, load_device, offload_device, size=0, current_device=None, **kwargs):
        self.model, self.load_device, self.offload_device = model, load_device, offload_device
        self.current_device = current_device or offload_device
        self.lora_patches, self.model_options = {}, {"transformer_options": {}}
        if not hasattr(model, "lora_loader"):
            model.lora_loader = LoraLoader(model)
        self.lora_loader = model.lora_loader

    def clone(self):
        made = type(self)(self.model, self.load_device, self.offload_device, 0, self.current_device)
        made.lora_patches = self.lora_patches.copy()
        made.model_options = copy.deepcopy(self.model_options)
        return made

    def is_clone(self, other):
        return self.model is other.model

    def add_patches(self, *, filename, patches, strength_patch=1.0, strength_model=1.0, online_mode=False):
        known = {key for key, _ in self.model.named_parameters()}
        kept = {key: patch for key, patch in patches.items() if key in known}
        taken = {key: [[strength_patch, patch, strength_model, None, None]] for key, patch in kept.items()}
        self.lora_patches[(filename, strength_patch, strength_model, online_mode)] = taken
        return set(taken)

    def refresh_loras(self):
        self.lora_loader.refresh(lora_patches=self.lora_patches, offload_device=self.offload_device)

    def set_model_vae_regulation(self, vae_regulation):
        self.model_options["model_vae_regulation"] = vae_regulation


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
