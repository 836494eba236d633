"""Every field that kohya_ss writes for a LoRA, older names of the same, and what becomes of it here.

docs/recipes.md is made from this table (`python -m lib_trainer settings --kohya --markdown`). The names are those of
kohya_ss 26 (https://github.com/bmaltais/kohya_ss, `kohya_gui/lora_gui.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from lib_trainer.recipes.kohya_other_models import MODEL_CHECKBOXES, OTHER_MODELS
from lib_trainer.recipes.reading import is_off, shown, shown_names

# used: the same as in kohya_ss. approximated: acts differently here.
# refused: would change the result, and is not done here. ignored: changes nothing in the result.
Fate = Literal["used", "approximated", "refused", "ignored"]


@dataclass(frozen=True)
class KohyaField:
    """One field of kohya_ss.

    Attributes:
        why: where it goes, or why it does not; a clause that ends without a full stop.
        usual: values besides the empty ones that change nothing, as text; ("*",) for any value.
    """

    name: str
    fate: Fate
    why: str
    usual: tuple[str, ...] = ()

    def is_usual(self, value: Any) -> bool:
        """Whether this value changes nothing, so that there is nothing to say."""
        return is_off(value) or self.usual == ("*",) or str(value).strip().lower() in self.usual


def _fields(fate: Fate, names: str, why: str = "", usual: str = "") -> list[KohyaField]:
    return [KohyaField(name, fate, why, tuple(usual.split())) for name in names.split()]


_SAME = (
    "network_dim network_alpha conv_dim conv_alpha factor decompose_both rank_dropout module_dropout train_data_dir"
    " output_name lr_scheduler_num_cycles lr_warmup train_batch_size gradient_accumulation_steps epoch"
    " max_train_steps save_every_n_epochs save_every_n_steps save_last_n_epochs save_last_n_steps seed"
    " caption_extension caption_dropout_rate enable_bucket min_bucket_reso max_bucket_reso"
    " bucket_no_upscale max_grad_norm gradient_checkpointing shuffle_caption keep_tokens color_aug flip_aug"
    " random_crop clip_skip noise_offset min_snr_gamma sample_every_n_steps sample_every_n_epochs sample_prompts"
    " loss_type huber_schedule huber_c huber_scale debiased_estimation_loss scale_v_pred_loss_like_noise_pred"
    " v_pred_like_loss noise_offset_random_strength adaptive_noise_scale multires_noise_iterations"
    " multires_noise_discount ip_noise_gamma ip_noise_gamma_random_strength min_timestep max_timestep"
    " masked_loss prior_loss_weight reg_data_dir"
    " lr_scheduler_power scale_weight_norms rank_dropout_scale loraplus_lr_ratio loraplus_unet_lr_ratio"
    " loraplus_text_encoder_lr_ratio train_norm"
)
_PROGRAM = (
    "dynamo_backend dynamo_mode dynamo_use_fullgraph dynamo_use_dynamic extra_accelerate_launch_args gpu_ids"
    " main_process_port multi_gpu num_machines num_processes num_cpu_threads_per_process max_data_loader_n_workers"
    " persistent_data_loader_workers"
)
_LOGS = "log_with log_config log_tracker_name log_tracker_config wandb_api_key wandb_run_name use_wandb log_prefix"
_HUGGINGFACE = (
    "huggingface_repo_id huggingface_token huggingface_repo_type huggingface_repo_visibility huggingface_path_in_repo"
    " save_state_to_huggingface resume_from_huggingface async_upload"
)
_BLOCKS = (
    "down_lr_weight mid_lr_weight up_lr_weight block_lr_zero_threshold block_dims block_alphas conv_block_dims"
    " conv_block_alphas"
)

_FLOW = "same name; not where flux1_checkbox says that the file is for another model"

_TABLE = [
    *_fields("used", _SAME),
    *_fields("used", "LoRA_type", "algo; LoHa, LoKr, LoCon and plain LoRA are trained"),
    *_fields("used", "use_cp use_tucker", "use_tucker; either of them turns it on"),
    *_fields("used", "learning_rate unet_lr", "learning_rate; unet_lr counts where it is given"),
    *_fields("used", "text_encoder_lr"),
    *_fields("used", "cache_latents_to_disk", "same name; on with color_aug or random_crop, where kohya has no choice"),
    *_fields("used", "network_train_unet_only", "text_encoder_lr becomes 0"),
    *_fields("used", "network_train_text_encoder_only", "learning_rate becomes 0"),
    *_fields("used", "max_train_epochs", "epoch; goes before max_train_steps, as with kohya"),
    *_fields("used", "lr_warmup_steps", "lr_warmup; below 1 it is a share of the steps"),
    *_fields("used", "discrete_flow_shift model_prediction_type timestep_sampling guidance_scale", _FLOW),
    *_fields("used", "max_resolution", "resolution_px"),
    *_fields("used", "network_weights lora_network_weights", "network_weights; the LoRA that is trained on"),
    *_fields("used", "LyCORIS_preset", "lycoris_preset; a file of presets is not read", "full"),
    *_fields(
        "used",
        "stop_text_encoder_training stop_text_encoder_training_pct",
        "stop_text_encoder_training, in per cent of the steps",
    ),
    *_fields("approximated", "network_dropout", "same name; LoHa and LoKr have none, as in LyCORIS"),
    *_fields("approximated", _BLOCKS, "same name; counts for LyCORIS types too, which kohya leaves out"),
    *_fields("used", "dora_wd", "same name; turns on wd_on_output, LyCORIS' default, unless the file turns it off"),
    *_fields("used", "dim_from_weights", "same name; layers, kinds and ranks of that LoRA"),
    *_fields("used", "training_comment", "comment"),
    *_fields("used", "mixed_precision save_precision", "same name; `no` and `float` are fp32", "fp16 bf16"),
    *_fields(
        "used",
        "noise_offset_type",
        "Original uses noise_offset, Multires the multires noise; not both, as with kohya",
        "original",
    ),
    *_fields(
        "approximated",
        "optimizer use_8bit_adam",
        "any class of pytorch-optimizer; others are replaced or refused",
    ),
    *_fields(
        "used",
        "optimizer_args",
        "optimizer_args, and weight_decay; unknown arguments are reported",
    ),
    *_fields("approximated", "lr_scheduler", "lr_scheduler; one that is not here is replaced or refused"),
    *_fields("approximated", "lr_scheduler_args", "lr_scheduler_args; unknown arguments are reported"),
    *_fields("approximated", "bucket_reso_steps", "sides are multiples of 8 px: 1 becomes 64"),
    *_fields("approximated", "additional_parameters", "its --options are read as fields of the same names"),
    *_fields("ignored", "sample_sampler", "samples are drawn with the host's first sampler", "*"),
    *_fields(
        "ignored", "pretrained_model_name_or_path model_list", "the checkpoint that is loaded is trained", "custom"
    ),
    *_fields("ignored", "v2 sdxl v_parameterization", "the checkpoint that is loaded says this itself", "*"),
    *_fields("ignored", "vae", "the VAE of the loaded checkpoint encodes the pictures"),
    *_fields("ignored", "vae_batch_size sdxl_no_half_vae no_half_vae", "how pictures are encoded is chosen here", "*"),
    *_fields("ignored", "cache_latents skip_cache_check", "latents are always cached, and each is checked", "*"),
    *_fields("ignored", "sdxl_cache_text_encoder_outputs", "texts are cached where no text encoder is trained", "*"),
    *_fields("ignored", "output_dir", "files go to the folder of LoRAs of the WebUI"),
    *_fields("ignored", "save_model_as", "files are always safetensors", "safetensors"),
    *_fields("ignored", "logging_dir", "the loss is logged beside the run", "*"),
    *_fields("ignored", _LOGS, "the loss is logged beside the run and sent nowhere", "*"),
    *_fields("ignored", _HUGGINGFACE, "nothing is sent to Hugging Face", "*"),
    *_fields("ignored", _PROGRAM, "one process trains on the device of the WebUI", "*"),
    *_fields("ignored", "xformers mem_eff_attn", "the WebUI chooses how attention is computed", "*"),
    *_fields("ignored", "highvram lowvram fp8_base", "the memory plan decides how the checkpoint is kept"),
    *_fields("ignored", "full_fp16 full_bf16", "the adapter is always trained in float32"),
    *_fields("ignored", "save_state save_state_on_train_end", "every run can be resumed: resume_every_minutes"),
    *_fields("ignored", "save_last_n_steps_state save_last_n_epochs_state", "one resumable state is kept a run"),
    *_fields("ignored", "resume", "Past runs resumes a run; kohya's states are not read"),
    *_fields("ignored", "metadata_author metadata_license metadata_tags", "the file names no author, licence or tags"),
    *_fields("ignored", "metadata_title metadata_description", "title and description are output_name and comment"),
    *_fields("ignored", "max_token_length", "captions of any length are read, in parts of 75 tokens", "*"),
    *_fields("ignored", "no_token_padding", "captions are padded as the WebUI pads prompts"),
    *_fields("ignored", "training_preset save_as_bool", "belongs to the page of kohya_ss", "*"),
    *_fields("ignored", "train_on_input unit constrain rescaled", "only iA3, DyLoRA and OFT have it", "*"),
    *_fields("ignored", "ggpo_sigma ggpo_beta", "only GGPO has it", "*"),
    *_fields("refused", "dataset_config", "open the dataset's TOML by itself: its settings are read"),
    *_fields("refused", "weighted_captions", "brackets in captions are plain text"),
    *_fields("refused", "caption_dropout_every_n_epochs", "use caption_dropout_rate"),
    *_fields("refused", "train_inpainting", "inpainting models are not trained"),
    *_fields("refused", "use_scalar", "the adapter has no extra scalar"),
    *_fields("refused", "conv_dims conv_alphas", "use conv_block_dims and conv_block_alphas"),
    *_fields("refused", "lr_scheduler_type", "schedules are chosen by lr_scheduler"),
    *_fields("ignored", "bypass_mode", "how the adapter is computed is chosen by measuring", "*"),
    *_fields("refused", "train_lora_ggpo", "no such noise is put on the weights"),
]
_OTHERS = [KohyaField(name, "ignored", why, ("*",)) for name, why in OTHER_MODELS.items()]
_MODELS = [
    KohyaField(name, "refused", f"the file is for {model}, and is tried on the checkpoint that is loaded")
    for name, model in MODEL_CHECKBOXES.items()
]
# kohya's names for what a recipe of ours calls differently: whoever writes one by hand may use them.
KOHYA_ALIASES = {"max_resolution": "resolution_px", "training_comment": "comment", "max_train_epochs": "epoch"}
FIELDS = {row.name: row for row in [*_TABLE, *_OTHERS, *_MODELS]}


def not_used(rest: Mapping[str, Any]) -> list[str]:
    """A sentence with the reason for each field that is not used; one for all where nothing of the result is lost."""
    sentences: list[str] = []
    unneeded: dict[str, list[str]] = {}
    for key, value in rest.items():
        field = FIELDS.get(key)
        if field is None or field.is_usual(value):
            continue
        if field.fate == "ignored":
            unneeded.setdefault(field.why, []).append(key)
        else:
            sentences.append(f"{key} = {shown(value)} is not done here: {field.why}.")
    sentences += [f"Not needed here: {shown_names(keys)} ({why})." for why, keys in unneeded.items()]
    unknown = rest.keys() - FIELDS.keys()
    return [*sentences, f"Not known here: {shown_names(unknown)}."] if unknown else sentences
