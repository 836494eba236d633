"""kohya's names in ours: the JSON files of the kohya_ss GUI, and what they say that is not done here.

The meanings are those of kohya_ss (https://github.com/bmaltais/kohya_ss) and sd-scripts
(https://github.com/kohya-ss/sd-scripts). A file's values come out as ours, with a sentence for everything else.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lib_trainer.config.recipe import field_types
from lib_trainer.config.settings import OPTIMIZERS, SCHEDULERS

ALGOS = {
    "lycoris/loha": "loha",
    "lycoris/lokr": "lokr",
    "lycoris/locon": "locon",
    "kohya locon": "locon",
    "locon": "locon",
    "standard": "locon",
}
RENAMED = {"max_resolution": "resolution_px", "training_comment": "comment"}
PRECISIONS = {"no": "fp32", "float": "fp32", "fp32": "fp32", "fp16": "fp16", "bf16": "bf16"}
# What stands in for an optimizer or schedule that is not here, where the other settings keep their meaning.
OPTIMIZERS_LIKE = {"pagedadamw8bit": "AdamW8bit", "pagedadamw": "AdamW", "pagedadamw32bit": "AdamW"}
OPTIMIZERS_LIKE.update(dict.fromkeys(("dadaptation", "dadaptadam", "dadaptadampreprint"), "Prodigy"))
SCHEDULERS_LIKE = {"constant_with_warmup": "constant", "polynomial": "linear"}
# Options the optimizers have here anyway.
AS_GIVEN = {f"{name}=true" for name in ("decouple", "safeguard_warmup", "use_bias_correction")}
AS_GIVEN |= {f"{name}=false" for name in ("scale_parameter", "relative_step", "warmup_init")}

# How the GUI looks, what the loaded checkpoint decides, and what is always done here.
_NOT_NEEDED = (
    "ae apply_t5_attn_mask async_upload cache_latents clip_g clip_l extra_accelerate_launch_args fp8_base fp8_base_unet"
    " gpu_ids highvram huber_c huber_schedule huber_scale logging_dir lowvram lr_scheduler_power main_process_port"
    " max_data_loader_n_workers max_token_length mem_eff_attn mem_eff_save model_list model_type multi_gpu"
    " no_token_padding num_cpu_threads_per_process num_machines num_processes output_dir persistent_data_loader_workers"
    " pretrained_model_name_or_path prior_loss_weight save_as_bool save_model_as sdxl sdxl_cache_text_encoder_outputs"
    " sdxl_no_half_vae skip_cache_check split_mode t5xxl timestep_sampling train_blocks train_on_input training_preset"
    " unit use_8bit_adam use_wandb v2 v_parameterization vae vae_batch_size wandb_api_key xformers guidance_scale"
    " discrete_flow_shift model_prediction_type t5xxl_lr t5xxl_max_token_length save_state save_state_on_train_end"
)
NOT_NEEDED = frozenset(_NOT_NEEDED.split())
NOT_NEEDED_PREFIXES = ("anima_", "dynamo_", "flux1_", "huggingface_", "hunyuan_", "log_", "lumina_", "metadata_")
NOT_NEEDED_PREFIXES += ("resume_from_", "sample_", "save_state_to_", "sd3_", "wandb_")
# What would change the result and is not done here, but for the values that leave it off.
_NOT_DONE = (
    "adaptive_noise_scale block_alphas block_dims block_lr_zero_threshold bypass_mode caption_dropout_every_n_epochs"
    " constrain conv_alphas conv_block_alphas conv_block_dims conv_dims dataset_config debiased_estimation_loss"
    " dim_from_weights dora_wd down_lr_weight full_bf16 full_fp16 ip_noise_gamma ip_noise_gamma_random_strength"
    " lora_network_weights loraplus_lr_ratio loraplus_text_encoder_lr_ratio loraplus_unet_lr_ratio lr_scheduler_args"
    " lr_scheduler_type masked_loss mid_lr_weight min_timestep multires_noise_discount multires_noise_iterations"
    " network_dropout network_weights noise_offset_random_strength rank_dropout_scale reg_data_dir rescaled resume"
    " save_last_n_epochs_state save_last_n_steps_state scale_v_pred_loss_like_noise_pred scale_weight_norms"
    " stop_text_encoder_training stop_text_encoder_training_pct"
    " train_inpainting train_lora_ggpo train_norm up_lr_weight use_scalar v_pred_like_loss weighted_captions"
)
NOT_DONE = dict.fromkeys(_NOT_DONE.split(), "")
NOT_DONE.update(LyCORIS_preset="full", loss_type="l2", max_timestep="1000")


@dataclass(frozen=True)
class Reading:
    """What a foreign description says.

    Attributes:
        values: our field -> value, as it stood there.
        notices: a sentence for everything that is not used, or means something else here.
        problems: our field -> why its value cannot be taken over.
    """

    values: dict[str, Any]
    notices: tuple[str, ...]
    problems: dict[str, str]


def is_gui_file(data: Mapping[str, Any]) -> bool:
    """Whether this JSON object is kohya_ss' rather than our own flat one."""
    return "algo" not in data and ("LoRA_type" in data or not data.keys() <= field_types().keys())


def read_gui(data: Mapping[str, Any]) -> Reading:
    """The settings of a kohya_ss GUI file. An empty value means what it means to kohya: not set."""
    reader = _Reader(data)
    reader.adapter()
    reader.rates()
    reader.length()
    reader.optimizer()
    reader.schedule()
    reader.pictures()
    reader.same_names()
    reader.leftovers()
    return Reading(reader.values, tuple(reader.notices), reader.problems)


def is_off(value: Any) -> bool:
    """kohya's ways of saying no: 0, "0", "0.0", false, "", "None", null."""
    return value is None or value is False or str(value).strip().lower() in ("", "0", "0.0", "false", "none")


class _Reader:
    """Takes one key after the other out of a file; what is left at the end is said."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self.rest = dict(data)
        self.values: dict[str, Any] = {}
        self.notices: list[str] = []
        self.problems: dict[str, str] = {}

    def take(self, key: str) -> Any:
        """The value of a key, taken out; None where it is missing or empty."""
        value = self.rest.pop(key, None)
        return None if isinstance(value, str) and not value.strip() else value

    def adapter(self) -> None:
        kind = self.take("LoRA_type")
        if kind is not None:
            algo = ALGOS.get(str(kind).strip().lower())
            if algo:
                self.values["algo"] = algo
            else:
                self.problems["algo"] = f"{kind!r} cannot be trained here; LyCORIS/LoHa, /LoKr and /LoCon can"
        for conv, linear in (("conv_dim", "network_dim"), ("conv_alpha", "network_alpha")):
            # LyCORIS: convolutions without a rank of their own take that of the linear layers.
            if kind is not None and self.rest.get(conv) in (None, "") and self.rest.get(linear) not in (None, ""):
                self.rest[conv] = self.rest[linear]
        if str(kind).strip().lower() == "standard":
            self.values["conv_dim"] = 0
            self.notices.append("LoRA_type Standard is trained as LoCon that leaves k×k convolutions alone.")
        tucker = [self.take(key) for key in ("use_cp", "use_tucker") if key in self.rest]
        if tucker:
            self.values["use_tucker"] = any(not is_off(value) for value in tucker)

    def rates(self) -> None:
        """The UNet's own rate wins. Without either of the special rates kohya trains both with the general one."""
        special = "unet_lr" in self.rest or "text_encoder_lr" in self.rest
        general, unet, text = (self.take(key) for key in ("learning_rate", "unet_lr", "text_encoder_lr"))
        options = str(self.take("additional_parameters") or "")
        unet_only = "--network_train_unet_only" in options
        left = options.replace("--network_train_unet_only", "").strip()
        if left:
            self.notices.append(f"Not done here: additional_parameters {left}.")
        if is_off(unet) and is_off(text):
            unet, text = general, (general if special and not unet_only else 0)
            if not is_off(text):
                self.notices.append(f"unet_lr and text_encoder_lr are 0: both are trained at {general}, as in kohya.")
        if unet is not None:
            self.values["learning_rate"] = unet
        if special or unet_only:
            self.values["text_encoder_lr"] = 0 if unet_only or is_off(text) else text

    def length(self) -> None:
        """kohya: max_train_epochs, else max_train_steps, else epoch."""
        epochs, steps, epoch = (self.take(key) for key in ("max_train_epochs", "max_train_steps", "epoch"))
        if not is_off(epochs):
            self.values.update(epoch=epochs, max_train_steps=0)
            return
        if epoch is not None:
            self.values["epoch"] = epoch
        self.values["max_train_steps"] = 0 if is_off(steps) else steps

    def optimizer(self) -> None:
        name, arguments = self.take("optimizer"), self.take("optimizer_args")
        if name is None and not is_off(self.rest.get("use_8bit_adam")):
            name = "AdamW8bit"
        if name is not None:
            self._choose("optimizer", str(name), OPTIMIZERS, OPTIMIZERS_LIKE)
        try:
            parts = shlex.split(str(arguments or ""))
        except ValueError:
            parts = [str(arguments)]
        decay = [part for part in parts if part.startswith("weight_decay=")]
        if decay:
            self.values["weight_decay"] = decay[-1].partition("=")[2]
        left = [part for part in parts if part not in decay and part.lower() not in AS_GIVEN]
        if left:
            self.notices.append(f"Not done here: optimizer_args {' '.join(left)}.")

    def schedule(self) -> None:
        name = self.take("lr_scheduler")
        if name is not None:
            self._choose("lr_scheduler", str(name), SCHEDULERS, SCHEDULERS_LIKE)
        steps, total = self.take("lr_warmup_steps"), self.values["max_train_steps"]
        if is_off(steps):
            return
        try:
            self.values["lr_warmup"] = 100 * float(steps) / float(total)
            self.rest.pop("lr_warmup", None)
        except (TypeError, ValueError, ZeroDivisionError):
            self.notices.append(f"lr_warmup_steps = {steps} needs max_train_steps here; lr_warmup counts.")

    def _choose(self, field: str, name: str, ours: tuple[str, ...], like: Mapping[str, str]) -> None:
        key = name.strip().lower()
        exact = next((choice for choice in ours if choice.lower() == key), None)
        if exact:
            self.values[field] = exact
        elif key in like:
            self.values[field] = like[key]
            if key != "constant_with_warmup":  # another name for the same thing
                self.notices.append(f"{field} {name} is not here; {like[key]} stands in for it.")
        else:
            self.problems[field] = f"{name!r} is not one of {', '.join(ours)}"

    def pictures(self) -> None:
        kind = self.take("noise_offset_type")
        if kind is not None and str(kind).strip().lower() != "original":
            # kohya hands the offset on for the original kind only.
            self.values["noise_offset"] = 0
            if not is_off(self.take("noise_offset")):
                self.notices.append(f"Not done here: noise_offset_type {kind}; no noise offset is used.")
        step = self.take("bucket_reso_steps")
        if step is not None:
            self.values["bucket_reso_steps"] = step
            if str(step).strip() in ("1", "1.0"):
                self.values["bucket_reso_steps"] = 64
                self.notices.append("bucket_reso_steps 1 cannot be: sides are multiples of 8 px; 64 is used.")
        if is_off(self.rest.get("clip_skip")):
            self.rest.pop("clip_skip", None)
        for field in ("mixed_precision", "save_precision"):
            value = self.take(field)
            if value is not None:
                self.values[field] = PRECISIONS.get(str(value).strip().lower(), value)

    def same_names(self) -> None:
        """Every other key that means here what it means to kohya."""
        known = field_types()
        for key in list(self.rest):
            field = RENAMED.get(key, key)
            if field in known:
                value = self.take(key)
                if value is not None and field not in self.values:
                    self.values[field] = value

    def leftovers(self) -> None:
        unneeded, unknown = [], []
        for key, value in self.rest.items():
            if key in NOT_DONE:
                if is_off(value) or str(value) == NOT_DONE[key]:
                    unneeded.append(key)
                else:
                    self.notices.append(f"Not done here: {key} = {value!s:.60}.")
            elif key in NOT_NEEDED or key.startswith(NOT_NEEDED_PREFIXES):
                unneeded.append(key)
            else:
                unknown.append(key)
        if unknown:
            self.notices.append(f"Not known here: {', '.join(sorted(unknown))}.")
        if unneeded:
            self.notices.append(f"Not needed here: {', '.join(sorted(unneeded))}.")
