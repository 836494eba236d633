"""LoRA files by name, and onto the models. Files are read once a name, models remember names and strengths."""

import functools

from ldm_patched.modules.lora import load_lora, model_lora_keys_clip, model_lora_keys_unet
from modules import sd_models, shared
from safetensors.torch import load_file

from tests.fakes.lora_folder import LoraFolder

_folder = LoraFolder()
available_networks, available_network_aliases = _folder.networks, _folder.aliases
forbidden_network_aliases = _folder.forbidden


@functools.lru_cache(maxsize=5)
def load_lora_state_dict(filename):
    return load_file(filename)


def load_networks(names, te_multipliers=None, unet_multipliers=None, dyn_dims=None):
    model = sd_models.model_data.get_sd_model()
    if any(_folder.find(name) is None for name in names):
        list_available_networks()
    files = [_folder.find(name).filename for name in names]
    targets = list(zip(files, unet_multipliers, te_multipliers, strict=True))
    if model.current_lora_hash == str(targets):
        return
    model.current_lora_hash = str(targets)
    objects, original = model.forge_objects, model.forge_objects_original
    objects.unet, objects.clip = original.unet, original.clip
    for filename, strength, strength_clip in targets:
        unet_patches, rest = load_lora(load_lora_state_dict(filename), model_lora_keys_unet(objects.unet.model, {}))
        clip_patches, _ = load_lora(rest, model_lora_keys_clip(objects.clip.cond_stage_model, {}))
        objects.unet, objects.clip = objects.unet.clone(), objects.clip.clone()
        objects.unet.add_patches(unet_patches, strength)
        objects.clip.add_patches(clip_patches, strength_clip)
    model.forge_objects_after_applying_lora = objects.shallow_copy()


def list_available_networks():
    _folder.refresh(shared.cmd_opts.lora_dir)
