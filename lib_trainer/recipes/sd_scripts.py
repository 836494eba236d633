"""Arguments of kohya's sd-scripts, as TOML, JSON or a dataset's TOML, under the names of the kohya_ss GUI.

The meanings are those of https://github.com/kohya-ss/sd-scripts: sections are merged, the innermost of a dataset wins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lib_trainer.recipes.kohya_gui import read_gui
from lib_trainer.recipes.kohya_names import SEVERAL
from lib_trainer.recipes.kohya_table import FIELDS
from lib_trainer.recipes.reading import Reading, is_off, shown

# Fields of the GUI's page that sd-scripts has under another name, or among its network_args.
_PAGE_ONLY = (
    "LoRA_type max_resolution lr_warmup optimizer noise_offset_type LyCORIS_preset conv_dim conv_alpha factor use_cp"
    " use_tucker decompose_both rank_dropout module_dropout train_on_input unit constrain rescaled xformers sdxl"
    " additional_parameters model_list stop_text_encoder_training_pct use_wandb block_dims block_alphas"
)
_RENAMED = {
    "optimizer_type": "optimizer",
    "resolution": "max_resolution",
    "batch_size": "train_batch_size",
    "image_dir": "train_data_dir",
    "caption_extention": "caption_extension",
    "network_rank": "network_dim",
}
_NETWORK_RENAMED = {"preset": "LyCORIS_preset", "dropout": "network_dropout", "constraint": "constrain"}
_NOT_DONE = {
    "stop_text_encoder_training": "sd-scripts has it for other trainings than of a LoRA",
    "num_repeats dataset_repeats": "repeats are read from the folder's name, like 10_jeff_person",
    "class_tokens": "captions are read from the files beside the pictures, or the folder's name",
    "is_reg": "name another folder as train_data_dir, and this one as reg_data_dir",
    "metadata_file in_json": "captions are read from the files beside the pictures",
    "caption_prefix caption_suffix": "captions are used as they stand",
    "caption_separator keep_tokens_separator secondary_separator": "tags are separated by commas",
    "enable_wildcard": "captions are used as they stand",
    "caption_tag_dropout_rate token_warmup_min token_warmup_step": "whole captions are dropped, not single tags",
    "alpha_mask": "masked_loss reads the alpha channel where there is no mask file",
    "conditioning_data_dir": "masks are read from masks/NAME.png beside the pictures",
    "face_crop_aug_range": "crops are taken from the middle, or anywhere",
    "lr_scheduler_timescale": "only the schedule inverse_sqrt has it",
    "initial_epoch initial_step skip_until_initial_step": "a run starts at its first step",
    "validate_every_n_epochs": "what is learned is measured by steps",
}
_NOT_NEEDED = (
    "sdpa cache_text_encoder_outputs cache_text_encoder_outputs_to_disk tokenizer_cache_dir lowram no_metadata"
    " config_file output_config debug_dataset dataset_class cache_info cache_file_for_faster resize_interpolation"
    " sample_at_first ddp_timeout ddp_gradient_as_bucket_view ddp_static_graph torch_compile"
    " disable_mmap_load_safetensors use_safetensors save_n_epoch_ratio text_encoder_batch_size"
)
_KEPT_WHOLE = ("network_args", "optimizer_args", "lr_scheduler_args")
_NOT_DONE_WHY = {name: why for names, why in _NOT_DONE.items() for name in names.split()}
SD_SCRIPTS_NAMES = (
    frozenset(FIELDS) - set(_PAGE_ONLY.split())
    | {"network_module", "network_args", "general", "datasets", "subsets"}
    | {"lr_decay_steps", "lr_scheduler_min_lr_ratio", "zero_terminal_snr", *SEVERAL}
    | _RENAMED.keys()
    | _NOT_DONE_WHY.keys()
    | set(_NOT_NEEDED.split())
)


def read_sd_scripts(data: Mapping[str, Any]) -> Reading:
    """The settings of a `--config_file`, of a JSON with the same names, or of a `--dataset_config`."""
    flat, notices = flat_settings(data), []
    for name in ("datasets", "subsets"):
        several = [item for item in _find_list(data, name) if not _is_of_class(item)]
        if len(several) > 1:
            notices.append(f"Of the {len(several)} {name} in the file the first is read.")
    settings = _as_gui(flat)
    of_class = [item["image_dir"] for item in _find_list(data, "subsets") if _is_of_class(item) and "image_dir" in item]
    if of_class and not flat.get("is_reg"):
        settings.setdefault("reg_data_dir", of_class[0])
    for name in [name for name in settings if name in _NOT_DONE_WHY]:
        value = settings.pop(name)
        if not is_off(value):
            notices.append(f"{name} = {shown(value)} is not done here: {_NOT_DONE_WHY[name]}.")
    reading = read_gui({name: value for name, value in settings.items() if name not in _NOT_NEEDED.split()})
    if "learning_rate" in flat and not {"max_train_steps", "max_train_epochs"} & flat.keys():
        notices.append("The file does not say how long to train (sd-scripts: 1600 steps): epoch counts here.")
    if not {"learning_rate", "unet_lr", "network_module"} & flat.keys():  # a dataset's file says nothing of rates
        reading.values.pop("text_encoder_lr")
        reading = replace(reading, notices=tuple(text for text in reading.notices if "text_encoder_lr" not in text))
    return replace(reading, notices=(*notices, *reading.notices))


def flat_settings(data: Mapping[str, Any]) -> dict[str, Any]:
    """All settings of all sections, without the sections; of a list those of its first that is not of the class."""
    flat: dict[str, Any] = {}
    inner: list[Mapping[str, Any]] = []
    for key, value in data.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            inner.append(next((item for item in value if isinstance(item, dict) and not _is_of_class(item)), value[0]))
        elif isinstance(value, dict) and not (key in _KEPT_WHOLE and "args" not in value):
            inner.append(value)
        else:
            flat[key] = value
    for section in inner:
        flat.update(flat_settings(section))
    return flat


def lora_type(module: str, arguments: Mapping[str, Any]) -> str:
    """What the GUI calls an adapter: its `LoRA_type`, from the network's module and its arguments."""
    algo = str(arguments.get("algo", "lora")).strip().lower()
    if "lycoris" in module:
        return f"LyCORIS/{'LoCon' if algo in ('lora', 'locon') else algo}"
    kind = module.rpartition(".")[2]
    if kind == "lora":
        return "Standard" if is_off(arguments.get("conv_dim")) else "Kohya LoCon"
    return {"loha": "Kohya LoHa", "lokr": "Kohya LoKr"}.get(kind, module)


def pairs(given: Any) -> dict[str, Any]:
    """`["algo=loha", "conv_dim=8"]`, the same as one text, or a table -> {"algo": "loha", "conv_dim": "8"}."""
    if isinstance(given, dict):
        return dict(given)
    parts = given if isinstance(given, list) else str(given or "").split()
    return {key.strip(): value.strip() for key, sign, value in (str(p).partition("=") for p in parts) if sign}


def _as_gui(flat: Mapping[str, Any]) -> dict[str, Any]:
    settings = {_RENAMED.get(name, name): value for name, value in flat.items()}
    module, given = settings.pop("network_module", None), settings.pop("network_args", None)
    arguments = pairs(given)
    if module is not None:
        settings["LoRA_type"] = lora_type(str(module), arguments)
        # The defaults of sd-scripts.
        settings.setdefault("network_dim", 4)
        settings.setdefault("network_alpha", 1)
    algo = arguments.pop("algo", None)
    if module is None and algo is not None:
        settings["LoRA_type"] = lora_type("lycoris.kohya", {"algo": algo})
    settings.update({_NETWORK_RENAMED.get(name, name): value for name, value in arguments.items()})
    for name in _KEPT_WHOLE[1:]:
        if isinstance(settings.get(name), dict):
            settings[name] = [f"{key}={value}" for key, value in settings[name].items()]
    if "text_encoder_lr" in settings and is_off(settings["text_encoder_lr"]):
        settings["network_train_unet_only"] = True
    return settings


def _is_of_class(section: Any) -> bool:
    """Whether a subset holds regularisation pictures."""
    return isinstance(section, dict) and section.get("is_reg") is True


def _find_list(data: Any, name: str) -> list[Any]:
    """The first list of this name in the sections."""
    if not isinstance(data, dict):
        return []
    if isinstance(data.get(name), list):
        return data[name]
    inner = [item[0] if isinstance(item, list) and item else item for item in data.values()]
    return next((found for found in (_find_list(item, name) for item in inner) if found), [])
