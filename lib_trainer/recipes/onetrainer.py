"""OneTrainer's configuration JSON in our names.

The names and meanings are those of https://github.com/Nerogar/OneTrainer, `modules/util/config/TrainConfig.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from lib_trainer.config.loss import TIMESTEPS
from lib_trainer.recipes.reading import Reading, is_off, shown, shown_names

ALGOS = {"LORA": "locon", "LOHA": "loha", "LOKR": "lokr"}
OPTIMIZERS = {
    "ADAMW": "AdamW",
    "ADAM": "AdamW",
    "ADAMW_8BIT": "AdamW8bit",
    "ADAM_8BIT": "AdamW8bit",
    "PRODIGY": "Prodigy",
    "LION": "Lion",
    "LION_8BIT": "Lion8bit",
    "CAME": "CAME",
    "AdEMAMix_8BIT": "AdEMAMix8bit",
    "SCHEDULE_FREE_ADAMW": "AdamWScheduleFree",
    "ADAFACTOR": "Adafactor",
}
SCHEDULERS = {
    "CONSTANT": "constant",
    "LINEAR": "linear",
    "COSINE": "cosine",
    "COSINE_WITH_RESTARTS": "cosine_with_restarts",
    "REX": "rex",
    "COSINE_WITH_HARD_RESTARTS": "cosine_with_restarts",
}
PRECISIONS = {"FLOAT_32": "fp32", "TFLOAT_32": "fp32", "FLOAT_16": "fp16", "BFLOAT_16": "bf16"}
UNITS = {"EPOCH": "epochs", "STEP": "steps"}
_SAME = {
    "epochs": "epoch",
    "batch_size": "train_batch_size",
    "gradient_accumulation_steps": "gradient_accumulation_steps",
    "learning_rate": "learning_rate",
    "clip_grad_norm": "max_grad_norm",
    "offset_noise_weight": "noise_offset",
    "aspect_ratio_bucketing": "enable_bucket",
    "lora_rank": "network_dim",
    "lora_alpha": "network_alpha",
    "lokr_decompose_factor": "factor",
    "lokr_decompose_both": "decompose_both",
    "masked_training": "masked_loss",
    "unmasked_weight": "unmasked_weight",
    "lokr_full_matrix": "full_matrix",
    "lokr_use_tucker": "use_tucker",
}
# What would change the result and is not done here -> the value that leaves it off.
_NOT_DONE = {
    "lora_decompose": "False",
    "lokr_weight_decompose": "False",
    "dropout_probability": "0.0",
    "layer_filter": "",
    "ema": "OFF",
    "perturbation_noise_weight": "0.0",
    "mae_strength": "0.0",
    "log_cosh_strength": "0.0",
    "huber_strength": "0.0",
    "mse_strength": "1.0",
    "timestep_distribution": "UNIFORM",
    "timestep_shift": "1.0",
    "rescale_noise_scheduler_to_zero_terminal_snr": "False",
    "generalized_offset_noise": "False",
    "learning_rate_min_factor": "0.0",
    "learning_rate_scaler": "NONE",
    "lora_model_name": "",
    "custom_learning_rate_scheduler": "",
    "loss_weight_fn": "CONSTANT",
}
_READ = (
    "training_method model_type peft_type output_model_destination output_dtype train_dtype resolution unet"
    " text_encoder text_encoder_2 optimizer learning_rate_scheduler learning_rate_warmup_steps learning_rate_cycles"
    " loss_weight_fn loss_weight_strength min_noising_strength max_noising_strength save_every save_every_unit"
    " lokr_dim text_encoder_layer_skip additional_embeddings bundle_additional_embeddings embedding_learning_rate"
)
_OTHERS = (
    "__version workspace_dir cache_dir tensorboard validation backup_after base_model_name output_model_format"
    " concept_file_name concepts latent_caching attention_mechanism fallback_train_dtype layer_filter_preset"
    " gradient_checkpointing vae prior transformer embedding cloud sample_after"
    " sample_after_unit samples secrets optimizer_defaults sample_definition_file_name vb_loss_strength"
)
ONETRAINER_NAMES = frozenset({*_SAME, *_NOT_DONE, *_READ.split(), *_OTHERS.split()})


def read_onetrainer(data: Mapping[str, Any]) -> Reading:
    """The settings of a OneTrainer configuration. A text encoder learns only where the file says so."""
    values = {ours: data[name] for name, ours in _SAME.items() if data.get(name) is not None}
    notices: list[str] = []
    problems: dict[str, str] = {}
    _adapter(data, values, problems)
    _rates(data, values, notices)
    _optimizer(data, values, notices, problems)
    _size_and_output(data, values, notices)
    _embedding(data, values, notices)
    for name, off in _NOT_DONE.items():
        value = data.get(name)
        if not is_off(value) and str(value) != off and name != "loss_weight_fn":
            notices.append(f"{name} = {shown(value)} is not done here.")
    unused = data.keys() - set(_SAME) - set(_NOT_DONE) - set(_READ.split())
    if unused:
        notices.append(f"Not used here: {shown_names(unused)}.")
    return Reading(values, tuple(notices), problems)


def _adapter(data: Mapping[str, Any], values: dict[str, Any], problems: dict[str, str]) -> None:
    method, kind = str(data.get("training_method", "LORA")), str(data.get("peft_type", "LORA"))
    if method != "LORA":
        problems["algo"] = f"training_method {shown(method)} is not an adapter; LORA is"
    elif kind in ALGOS:
        values["algo"] = ALGOS[kind]
    else:
        problems["algo"] = f"peft_type {shown(kind)} cannot be trained here; {', '.join(ALGOS)} can"
    if kind == "LOKR" and data.get("lokr_dim") is not None:
        values["network_dim"] = data["lokr_dim"]
    for conv, linear in (("conv_dim", "network_dim"), ("conv_alpha", "network_alpha")):
        if linear in values:
            values[conv] = values[linear]


def _rates(data: Mapping[str, Any], values: dict[str, Any], notices: list[str]) -> None:
    """A part without a rate of its own learns at the general one."""
    general, unet = data.get("learning_rate"), _part(data, "unet")
    if unet.get("learning_rate") is not None:
        values["learning_rate"] = unet["learning_rate"]
    if unet.get("train") is False:
        values["learning_rate"] = 0
    rates = [
        part.get("learning_rate") if part.get("learning_rate") is not None else general
        for part in (_part(data, "text_encoder"), _part(data, "text_encoder_2"))
        if part.get("train") is True
    ]
    values["text_encoder_lr"] = rates[0] if rates and rates[0] is not None else 0
    if len(set(map(str, rates))) > 1:
        notices.append(f"Both text encoders learn at {shown(rates[0])}.")
    if "train" not in _part(data, "text_encoder"):
        notices.append("The file does not say whether the text encoder learns: it is left alone.")
    # OneTrainer counts the layers left out, kohya the layer that is read.
    skip = data.get("text_encoder_layer_skip")
    if isinstance(skip, int) and skip > 0:
        values["clip_skip"] = skip + 1


def _optimizer(data: Mapping[str, Any], values: dict[str, Any], notices: list[str], problems: dict[str, str]) -> None:
    chosen = data.get("optimizer")
    options = chosen if isinstance(chosen, dict) else {"optimizer": chosen}
    for name, table, field in (
        (options.get("optimizer"), OPTIMIZERS, "optimizer"),
        (data.get("learning_rate_scheduler"), SCHEDULERS, "lr_scheduler"),
    ):
        if name is not None and str(name) in table:
            values[field] = table[str(name)]
        elif field == "optimizer" and str(name).replace("_", "").isalnum():
            # Named as the classes of pytorch-optimizer, but for the strokes; looked for when the run begins.
            values[field] = str(name).replace("_", "")
        elif name is not None:
            problems[field] = f"{shown(name)} is not one of {', '.join(dict.fromkeys(table.values()))}"
    if options.get("weight_decay") is not None:
        values["weight_decay"] = options["weight_decay"]
    if options.get("fused_back_pass") is True:
        values["fused_backward_pass"] = True
    if data.get("learning_rate_cycles") is not None:
        values["lr_scheduler_num_cycles"] = data["learning_rate_cycles"]
    warmup = data.get("learning_rate_warmup_steps")
    if isinstance(warmup, (int, float)) and 0 < warmup <= 1:  # a share of all steps, as there
        values["lr_warmup"] = 100 * warmup
    elif not is_off(warmup):
        notices.append(f"learning_rate_warmup_steps = {shown(warmup)} is not done here: lr_warmup is a share.")
    weighting = data.get("loss_weight_fn")
    if weighting == "MIN_SNR_GAMMA":
        values["min_snr_gamma"] = data.get("loss_weight_strength", 5)
    elif weighting == "DEBIASED_ESTIMATION":
        values["debiased_estimation_loss"] = True
    elif weighting not in (None, "CONSTANT"):
        notices.append(f"loss_weight_fn = {shown(weighting)} is not done here.")


def _size_and_output(data: Mapping[str, Any], values: dict[str, Any], notices: list[str]) -> None:
    for name, field in (("min_noising_strength", "min_timestep"), ("max_noising_strength", "max_timestep")):
        share = data.get(name)
        if isinstance(share, (int, float)) and 0 <= share <= 1:
            values[field] = round(share * TIMESTEPS)
    sizes = [part.strip() for part in str(data.get("resolution") or "").split(",") if part.strip()]
    if sizes:
        values["resolution_px"] = sizes[0]
    if len(sizes) > 1:
        notices.append(f"resolution = {shown(data['resolution'])}: the first of these is trained.")
    for name, field in (("train_dtype", "mixed_precision"), ("output_dtype", "save_precision")):
        if data.get(name) is not None:
            values[field] = PRECISIONS.get(str(data[name]), data[name])
    if isinstance(data.get("output_model_destination"), str):
        values["output_name"] = PurePosixPath(data["output_model_destination"].replace("\\", "/")).stem
    unit = UNITS.get(str(data.get("save_every_unit")))
    if unit and not is_off(data.get("save_every")):
        values[f"save_every_n_{unit}"] = data["save_every"]


def _embedding(data: Mapping[str, Any], values: dict[str, Any], notices: list[str]) -> None:
    """The first embedding that is trained beside the adapter; it is always bundled here."""
    listed = data.get("additional_embeddings")
    entries = [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
    trained = [entry for entry in entries if entry.get("train") is not False]
    if not trained:
        return
    first = trained[0]
    values["num_vectors_per_token"] = first.get("token_count") or 1
    # A placeholder like <jeff> would mean a tag in WebUIs.
    values["token_string"] = str(first.get("placeholder") or "").strip("<>")
    values["init_word"] = first.get("initial_embedding_text") or ""
    rate = data.get("embedding_learning_rate")
    if (rate := data.get("learning_rate") if rate is None else rate) is not None:
        values["embedding_lr"] = rate
    if len(trained) > 1:
        notices.append(f"additional_embeddings: the first of {len(trained)} is trained.")
    if first.get("is_output_embedding"):
        notices.append("is_output_embedding is not done here: the embedding goes into the text encoder.")
    if data.get("bundle_additional_embeddings") is False:
        notices.append("bundle_additional_embeddings = False is not done here: the LoRA holds the embedding.")


def _part(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = data.get(name)
    return part if isinstance(part, dict) else {}
