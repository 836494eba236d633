"""The metadata of an adapter file: kohya's `ss_*`, Stability's `modelspec.*`, and the WebUI's card.

Nothing in it changes from one run to the next of the same recipe: no times, no paths, no session ids.
The names are those of kohya's sd-scripts (https://github.com/kohya-ss/sd-scripts) and of
https://github.com/Stability-AI/ModelSpec, which the WebUIs read.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from lib_trainer.config.layers import LayerConfig
from lib_trainer.config.rates import RateConfig
from lib_trainer.config.recipe import Recipe, default_of, field_types
from lib_trainer.config.start import FILE_FIELDS, without_folders
from lib_trainer.config.task import FOLDER_FIELDS
from lib_trainer.events import Evaluated
from lib_trainer.models.base import CheckpointInfo
from lib_trainer.models.families import Family
from lib_trainer.utils.safetensors_header import header_of

RECIPE_KEY, EVALUATION_KEY = "train_lora_recipe", "train_lora_evaluation"
# What a file, the command line and the routes say of an evaluation: names of `events.Evaluated`.
EVALUATED = ("verdict", "advice", "best_step", "best_strength", "learned", "drift", "memorised", "bound")
LABELS = {"loha": "LoHa", "lokr": "LoKr", "locon": "LoCon", "norm": "norms"}
# kohya's own names, under `ss_` and with the same meaning.
_AS_THEY_ARE = (
    "network_dim network_alpha mixed_precision clip_skip seed noise_offset max_grad_norm caption_dropout_rate"
    " keep_tokens min_snr_gamma gradient_checkpointing gradient_accumulation_steps lr_scheduler color_aug flip_aug"
    " random_crop shuffle_caption enable_bucket bucket_no_upscale min_bucket_reso max_bucket_reso text_encoder_lr"
    " output_name loss_type huber_schedule huber_scale huber_c multires_noise_iterations multires_noise_discount"
    " adaptive_noise_scale ip_noise_gamma noise_offset_random_strength ip_noise_gamma_random_strength"
)
AS_THEY_ARE = tuple(_AS_THEY_ARE.split())
_IMPLEMENTATIONS = {
    "sdxl": "https://github.com/Stability-AI/generative-models",
    "flux": "https://github.com/black-forest-labs/flux",
    "chroma": "https://huggingface.co/lodestones/Chroma",
    "lumina2": "https://github.com/Alpha-VLLM/Lumina-Image-2.0",
    "zimage": "https://github.com/Tongyi-MAI/Z-Image",
    "klein4b": "https://github.com/black-forest-labs/flux2",
    "klein9b": "https://github.com/black-forest-labs/flux2",
    "anima": "https://huggingface.co/circlestone-labs/Anima",
}
# Settings of later releases, in sections that have older ones.
_LATER = {
    "dora_wd",
    "wd_on_output",
    "train_norm",
    "tlora_min_rank",
    "tlora_alpha",
    "unbalanced_factorization",
    "rs_lora",
    "rank_dropout_scale",
    "network_dropout",
}
_LATER_LOSS = {"soft_min_snr", "zero_terminal_snr"}
NETWORK_ARGS = ("conv_dim", "conv_alpha", "rank_dropout", "module_dropout", "use_tucker")
_LAYER_ARGS = tuple(
    name for name in (*(item.name for item in fields(LayerConfig)), *sorted(_LATER)) if name != "lycoris_preset"
)
LOKR_ARGS = ("factor", "decompose_both", "full_matrix")
# The legacy hash reads 64 KiB one MiB into the file.
_LEGACY_START, _LEGACY_END = 0x100000, 0x110000


@dataclass(frozen=True)
class TrainedPicture:
    """One image as the file records it. `folder` is a name, not a path; `bucket_px` is (width, height)."""

    folder: str
    caption: str
    repeats: int
    bucket_px: tuple[int, int]


@dataclass(frozen=True)
class TrainedOn:
    """The dataset as the file records it."""

    pictures: tuple[TrainedPicture, ...]
    batches_per_epoch: int
    trigger_word: str = ""


def file_metadata(
    recipe: Recipe,
    family: Family,
    checkpoint: CheckpointInfo,
    trained_on: TrainedOn,
    *,
    prediction: Literal["epsilon", "v", "flow"],
    steps: int,
    epoch: int,
) -> dict[str, str]:
    """The metadata of a file saved after `steps` optimizer steps, in epoch `epoch`.

    The recipe lies under `train_lora_recipe`, without its folders: a path of this machine is private. Add `file_hashes`
    of the same tensors; without them WebUIs confuse files.
    """
    values = recipe.flat()
    # A run that uses none of these settings writes the file that it wrote before there were any.
    unset = {name for name, (section, _) in field_types().items() if section in ("evaluation", "flow", "start", "task")}
    unset |= {item.name for cls in (LayerConfig, RateConfig) for item in fields(cls)} | _LATER | _LATER_LOSS
    unset = {name for name in unset if values[name] == default_of(name)}
    own = {name: value for name, value in values.items() if name not in FOLDER_FIELDS and name not in unset}
    own.update({name: without_folders(own[name]) for name in FILE_FIELDS if name in own})
    metadata = {
        **{f"ss_{name}": values[name] for name in AS_THEY_ARE},
        **_about_training(recipe, steps, epoch),
        **(_about_flow(recipe, family) if family.is_flow else {}),
        **_about_checkpoint(family, checkpoint, prediction),
        **_about_pictures(trained_on),
        **_model_spec(recipe, family, trained_on, prediction),
        "ss_network_args": _json(_network_args(recipe)),
        RECIPE_KEY: _json(own),
    }
    return {key: str(value) for key, value in metadata.items() if value not in ("", None)}


def evaluation_metadata(found: Evaluated) -> dict[str, str]:
    """What was found of the weights in a file."""
    values = asdict(found)
    return {EVALUATION_KEY: _json({name: values[name] for name in EVALUATED if values[name] is not None})}


def file_hashes(content: bytes) -> dict[str, str]:
    """kohya's hashes of an adapter, by which WebUIs know it.

    Args:
        content: the tensors as `safetensors.torch.save(tensors)` writes them. Metadata moves nothing in the first hash.
    """
    tensors = content[header_of(content).size_bytes :]
    hashes = {"sshs_model_hash": hashlib.sha256(tensors).hexdigest()}
    if len(content) > _LEGACY_START:  # below that it would be the same for every file
        hashes["sshs_legacy_hash"] = hashlib.sha256(content[_LEGACY_START:_LEGACY_END]).hexdigest()[:8]
    return hashes


def _about_training(recipe: Recipe, steps: int, epoch: int) -> dict[str, Any]:
    training, data = recipe.training, recipe.dataset
    batch = training.train_batch_size
    return {
        # What readers of LyCORIS files look for, whoever trained them.
        "ss_network_module": "lycoris.kohya",
        "ss_learning_rate": training.learning_rate,
        "ss_unet_lr": training.learning_rate,
        "ss_optimizer": f"{training.optimizer}(weight_decay={training.weight_decay})",
        # 0 means by epochs; the file says how many that came to.
        "ss_max_train_steps": training.max_train_steps or steps,
        "ss_lr_warmup_steps": round((training.max_train_steps or steps) * training.lr_warmup / 100),
        "ss_num_epochs": training.epoch,
        "ss_steps": steps,
        "ss_epoch": epoch,
        "ss_batch_size_per_device": batch,
        "ss_total_batch_size": batch * training.gradient_accumulation_steps,
        "ss_resolution": f"{data.resolution_px[0]},{data.resolution_px[1]}",
        "ss_training_comment": recipe.output.comment,
        "ss_debiased_estimation": recipe.loss.debiased_estimation_loss,
        "ss_cache_latents": True,
        "ss_num_reg_images": 0,
    }


def _about_flow(recipe: Recipe, family: Family) -> dict[str, Any]:
    """kohya's names for how flow matching was trained; the shift is the one that was used."""
    flow = recipe.flow
    guidance = {"ss_guidance_scale": flow.guidance_scale} if family.distilled_guidance else {}
    return {
        "ss_timestep_sampling": flow.timestep_sampling,
        "ss_discrete_flow_shift": flow.discrete_flow_shift or family.flow_shift,
        "ss_sigmoid_scale": flow.sigmoid_scale,
        "ss_model_prediction_type": flow.model_prediction_type,
        **guidance,
    }


def _network_args(recipe: Recipe) -> dict[str, str]:
    """What kohya would have handed to LyCORIS: text, as there."""
    adapter = recipe.adapter
    names = NETWORK_ARGS + (LOKR_ARGS if adapter.algo == "lokr" else ())
    names += tuple(name for name in _LAYER_ARGS if getattr(adapter, name) != default_of(name))
    if adapter.dora_wd:
        # LyCORIS' default is the other one.
        names += ("wd_on_output",)
    values = {name: str(getattr(adapter, name)) for name in dict.fromkeys(names)}
    return {"algo": adapter.algo, "preset": adapter.lycoris_preset, **values}


def _about_checkpoint(family: Family, checkpoint: CheckpointInfo, prediction: str) -> dict[str, Any]:
    # kohya marks v-prediction in the version of SD 1 and 2 only.
    version = family.base_model_version + ("_v" if prediction == "v" and family.key in ("sd1", "sd2") else "")
    return {
        "ss_base_model_version": version,
        "ss_v2": family.key == "sd2",
        "ss_sd_model_name": checkpoint.name,
        "ss_new_sd_model_hash": checkpoint.sha256,
        "ss_vae_name": checkpoint.vae,
    }


def _about_pictures(trained_on: TrainedOn) -> dict[str, Any]:
    frequency: dict[str, Counter[str]] = {}
    folders: dict[str, dict[str, int]] = {}
    buckets: Counter[tuple[int, int]] = Counter()
    for picture in trained_on.pictures:
        tags = (tag.strip().lower() for tag in picture.caption.split(","))
        frequency.setdefault(picture.folder, Counter()).update(tag for tag in tags if tag)
        folder = folders.setdefault(picture.folder, {"n_repeats": picture.repeats, "img_count": 0})
        folder["img_count"] += 1
        buckets[picture.bucket_px] += picture.repeats
    shapes = {str(i): {"resolution": list(px), "count": buckets[px]} for i, px in enumerate(sorted(buckets))}
    return {
        "ss_num_train_images": sum(picture.repeats for picture in trained_on.pictures),
        "ss_num_batches_per_epoch": trained_on.batches_per_epoch,
        "ss_tag_frequency": _json(frequency),
        "ss_dataset_dirs": _json(folders),
        "ss_bucket_info": _json({"buckets": shapes}),
    }


def _model_spec(recipe: Recipe, family: Family, trained_on: TrainedOn, prediction: str) -> dict[str, Any]:
    width_px, height_px = recipe.dataset.resolution_px
    name, architecture = recipe.output.output_name, family.architecture
    if family.key == "sd2" and prediction == "epsilon":
        architecture = architecture.replace("-768-v", "-512")
    spec = {
        "sai_model_spec": "1.0.1",
        "architecture": architecture,
        # As kohya writes it: SDXL adapters name their layers the way Stability's own code does.
        "implementation": _IMPLEMENTATIONS.get(family.key, "diffusers"),
        "title": name,
        "description": recipe.output.comment,
        "resolution": f"{width_px}x{height_px}",
        "trigger_phrase": recipe.embedding.prompt_word(trained_on.trigger_word),
        "usage_hint": f"<lora:{name}:{recipe.output.preferred_weight:g}>",
        "prediction_type": prediction,
        "encoder_layer": recipe.training.clip_skip,
    }
    return {f"modelspec.{key}": value for key, value in spec.items()}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
