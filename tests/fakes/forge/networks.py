"""LoRA files by name, and onto the models. Files are read once a name, models remember names and strengths."""

import torch
from tests.fakes.lora_folder import LoraFolder

from backend.args import dynamic_args
from backend.lora_files import load_lora_state_dict
from backend.patcher.lora import load_lora, model_lora_keys_clip, model_lora_keys_unet
from modules import sd_models, shared

_folder = LoraFolder()
available_networks, available_network_aliases = _folder.networks, _folder.aliases
forbidden_network_aliases, _find = _folder.forbidden, _folder.find


def load_lora_for_models(model, clip, lora, strength_model, strength_clip, filename="default", online_mode=False):
    unet_patches, rest = load_lora(lora, model_lora_keys_unet(model.model, {}))
    clip_patches, rest = load_lora(rest, model_lora_keys_clip(clip.cond_stage_model, {}))
    if len(rest) > 12:
        print(f"[LORA] LoRA version mismatch: {filename}")
        return model, clip
    options = {"filename": filename, "online_mode": online_mode}
    if unet_patches:
        model = model.clone()
        model.add_patches(patches=unet_patches, strength_patch=strength_model, **options)
    if clip_patches:
        clip = clip.clone()
        clip.add_patches(patches=clip_patches, strength_patch=strength_clip, **options)
    return model, clip


def load_networks(names, te_multipliers=None, unet_multipliers=None, dyn_dims=None):
    engine = sd_models.model_data.get_sd_model()
    if any(_find(name) is None for name in names):
        list_available_networks()
    files = [_find(name) for name in names]
    online = dynamic_args["online_lora"]
    if engine.forge_objects.unet.model.storage_dtype in (torch.float32, torch.float16, torch.bfloat16):
        online = False
    strengths = zip(unet_multipliers, te_multipliers, strict=True)
    targets = [[file.filename, *pair, online] for file, pair in zip(files, strengths, strict=True)]
    if engine.current_lora_hash == str(targets):
        return
    engine.current_lora_hash = str(targets)
    objects, original = engine.forge_objects, engine.forge_objects_original
    objects.unet, objects.clip = original.unet, original.clip
    for filename, strength, strength_clip, online_mode in targets:
        objects.unet, objects.clip = load_lora_for_models(
            objects.unet, objects.clip, load_lora_state_dict(filename), strength, strength_clip, filename, online_mode
        )
    engine.forge_objects_after_applying_lora = objects.shallow_copy()


def list_available_networks():
    _folder.refresh(shared.cmd_opts.lora_dir)
