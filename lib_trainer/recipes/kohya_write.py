"""A recipe of ours as the kohya_ss GUI saves one: what opens there, and comes back here as it was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lib_trainer.config.recipe import Recipe, default_of
from lib_trainer.recipes.kohya_table import FIELDS

_TYPES = {"loha": "LyCORIS/LoHa", "lokr": "LyCORIS/LoKr", "locon": "LyCORIS/LoCon"}
_PRECISIONS = {"mixed_precision": "no", "save_precision": "float"}
# Options with which these optimizers run here; kohya leaves them to the person.
_OPTIONS = {
    "Prodigy": ("decouple=True", "use_bias_correction=True", "safeguard_warmup=True"),
    "Adafactor": ("scale_parameter=False", "relative_step=False", "warmup_init=False"),
}
# kohya finds these by their package.
_NAMES = {name: f"pytorch_optimizer.{name}" for name in ("CAME", "Adan", "StableAdamW", "Muon")}
_NAMES["AdEMAMix8bit"] = "bitsandbytes.optim.AdEMAMix8bit"
# What is not done here, switched off: kohya_ss keeps what its page held before for every field that a file leaves out.
_OFF_BY_VALUE: dict[str, Any] = {
    "save_model_as": "safetensors",
    "max_train_epochs": 0,
    "lr_warmup_steps": 0,
}
_OFF_BY_KIND: dict[str, tuple[Any, str]] = {
    "text": ("", "dataset_config lr_scheduler_type resume vae"),
    "number": (0, "caption_dropout_every_n_epochs"),
    "switch": (
        False,
        "weighted_captions train_inpainting"
        " train_norm use_scalar bypass_mode full_fp16 full_bf16 fp8_base train_lora_ggpo"
        " sd3_checkbox hunyuan_image_checkbox anima_checkbox lumina_checkbox",
    ),
}
# Fields that are written by the functions below, not under their own names.
_TRANSLATED = ("algo", "learning_rate", "resolution_px", "comment", "weight_decay", "use_tucker", "lycoris_preset")


def kohya_values(recipe: Recipe) -> tuple[dict[str, Any], tuple[str, ...]]:
    """(the fields of a kohya_ss JSON file, a sentence for everything that kohya_ss cannot do).

    Settings that kohya_ss lacks are in the file under our names, where they are not at their defaults: it ignores
    them, and they come back here.
    """
    flat = recipe.flat()
    values = {**_OFF_BY_VALUE, **{name: off for off, names in _OFF_BY_KIND.values() for name in names.split()}}
    values.update({name: value for name, value in flat.items() if name in FIELDS and name not in _TRANSLATED})
    values.update(_adapter(flat), **_rates(flat), **_optimizer(flat), **_pictures(flat))
    only_ours = [name for name in flat if name not in FIELDS and name not in _TRANSLATED and name not in values]
    extra = {name: flat[name] for name in only_ours if flat[name] != default_of(name)}
    return {**values, **extra}, _notices(flat, extra)


def _adapter(flat: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "LoRA_type": _TYPES[flat["algo"]],
        "LyCORIS_preset": flat["lycoris_preset"],
        "use_cp": flat["use_tucker"],
        "use_tucker": flat["use_tucker"],
        "lora_network_weights": flat["network_weights"],
        # kohya_ss has no such field, and means that it is on.
        **({"wd_on_output": flat["wd_on_output"]} if flat["dora_wd"] else {}),
        "training_comment": flat["comment"],
    }


def _rates(flat: Mapping[str, Any]) -> dict[str, Any]:
    general = flat["learning_rate"] or flat["text_encoder_lr"]
    return {"learning_rate": general, "unet_lr": flat["learning_rate"], "text_encoder_lr": flat["text_encoder_lr"]}


def _optimizer(flat: Mapping[str, Any]) -> dict[str, Any]:
    options = (f"weight_decay={flat['weight_decay']:g}", *_OPTIONS.get(flat["optimizer"], ()))
    rises = flat["lr_scheduler"] == "constant" and flat["lr_warmup"]
    return {
        "optimizer": _NAMES.get(flat["optimizer"], flat["optimizer"]),
        "optimizer_args": " ".join((*options, flat["optimizer_args"])).strip(),
        "lr_scheduler": "constant_with_warmup" if rises else flat["lr_scheduler"],
        **{name: none if flat[name] == "fp32" else flat[name] for name, none in _PRECISIONS.items()},
    }


def _pictures(flat: Mapping[str, Any]) -> dict[str, Any]:
    # kohya refuses these two together with cached latents.
    cached = not (flat["color_aug"] or flat["random_crop"])
    return {
        "max_resolution": "{},{}".format(*flat["resolution_px"]),
        "noise_offset_type": "Multires" if flat["multires_noise_iterations"] else "Original",
        "cache_latents": cached,
        "cache_latents_to_disk": cached and flat["cache_latents_to_disk"],
    }


def _notices(flat: Mapping[str, Any], extra: Mapping[str, Any]) -> tuple[str, ...]:
    notices = [f"kohya_ss does not have {name}; the file keeps it for Train LoRA." for name in extra]
    if flat["cache_latents_to_disk"] and (flat["color_aug"] or flat["random_crop"]):
        notices.append("cache_latents_to_disk is off in the file: kohya refuses it with color_aug or random_crop.")
    if flat["multires_noise_iterations"] and flat["noise_offset"]:
        notices.append("kohya_ss uses multires noise or a noise offset, not both: noise_offset is off there.")
    if flat["lr_scheduler"] == "rex":
        notices.append("kohya_ss does not have the scheduler rex: choose another there.")
    if flat["dora_wd"] and not flat["wd_on_output"]:
        notices.append("kohya_ss trains dora_wd with the norm per output; here it is per input.")
    if not flat["seed"]:
        notices.append("seed 0 is a different seed each time for kohya_ss.")
    return tuple(notices)
