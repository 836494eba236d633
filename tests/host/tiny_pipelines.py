"""Tiny random checkpoints of each family: as diffusers folders, and as the single files that WebUIs keep."""

from __future__ import annotations

import gzip
import re
from copy import deepcopy
from functools import cache
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiffusionPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from lib_trainer.host.standalone.tokenizer import read_vocabulary
from lib_trainer.models.families import SD1, SD2, SDXL, Family
from lib_trainer.models.layer_names import ldm_names

END_MARK = "<|endoftext|>"
TEXT_WIDTH = 32
# diffusers tells SDXL's two text encoders apart by their width.
SECOND_WIDTH = 64
_RESNET_NORMS = {"norm1": ("conv1", "in_layers.2", "in_layers.0"), "norm2": ("conv2", "out_layers.3", "out_layers.0")}
_VAE_NAMES = (
    (r"down_blocks\.(\d+)\.resnets\.(\d+)", r"down.\1.block.\2"),
    (r"down_blocks\.(\d+)\.downsamplers\.0\.conv", r"down.\1.downsample.conv"),
    (r"mid_block\.resnets\.0", "mid.block_1"),
    (r"mid_block\.resnets\.1", "mid.block_2"),
    (r"mid_block\.attentions\.0\.to_out\.0", "mid.attn_1.proj_out"),
    (r"mid_block\.attentions\.0\.to_([qkv])", r"mid.attn_1.\1"),
    (r"mid_block\.attentions\.0\.group_norm", "mid.attn_1.norm"),
    (r"conv_norm_out", "norm_out"),
    (r"conv_shortcut", "nin_shortcut"),
)
_OPEN_CLIP_NAMES = (
    ("embeddings.token_embedding", "token_embedding"),
    ("embeddings.position_embedding.weight", "positional_embedding"),
    ("encoder.layers", "transformer.resblocks"),
    ("self_attn.out_proj", "attn.out_proj"),
    ("layer_norm", "ln_"),
    ("mlp.fc1", "mlp.c_fc"),
    ("mlp.fc2", "mlp.c_proj"),
    ("final_ln_", "ln_final"),
)


def tiny_tokenizer(folder: Path, pad_token: str = END_MARK) -> CLIPTokenizer:
    """Letters only: 514 words, one token a letter."""
    path = folder / "letters.txt.gz"
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write("#version: 0.2\n")
    return read_vocabulary(path, pad_token)


def tiny_pipeline(family: Family, folder: Path, prediction: str = "epsilon") -> DiffusionPipeline:
    """A random model of `family`'s structure, the same for every call."""
    # A copy is made in less time than random weights.
    parts = {**deepcopy(_models(family)), "tokenizer": tiny_tokenizer(folder)}
    parts["scheduler"] = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction,
    )
    if family is SDXL:
        parts["tokenizer_2"] = tiny_tokenizer(folder, "!")
        pipeline = StableDiffusionXLPipeline(**parts)
    else:
        left_out = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
        pipeline = StableDiffusionPipeline(**parts, **left_out)
    for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        part.eval()
    return pipeline


@cache
def _models(family: Family) -> dict[str, torch.nn.Module]:
    torch.manual_seed(0)
    models = {"unet": _unet(family), "vae": _vae(family)}
    models["text_encoder"] = CLIPTextModel(_text_config("quick_gelu" if family is not SD2 else "gelu"))
    if family is SDXL:
        models["text_encoder_2"] = CLIPTextModelWithProjection(_text_config("gelu", SECOND_WIDTH))
    return models


def write_single_file(pipeline: DiffusionPipeline, family: Family, path: Path, *marks: str) -> Path:
    """The pipeline's weights under LDM names, as one file."""
    tensors = {f"model.diffusion_model.{k}": v for k, v in ldm_tensors(pipeline.unet).items()}
    tensors.update({f"first_stage_model.{k}": v for k, v in _ldm_vae(pipeline.vae).items()})
    text = _text_tensors(pipeline.text_encoder)
    if family is SD1:
        tensors.update({f"cond_stage_model.transformer.{k}": v for k, v in text.items()})
    elif family is SD2:
        tensors.update({f"cond_stage_model.model.{k}": v for k, v in _open_clip(text).items()})
    else:
        tensors.update({f"conditioner.embedders.0.transformer.{k}": v for k, v in text.items()})
        second = _open_clip(_text_tensors(pipeline.text_encoder_2))
        tensors.update({f"conditioner.embedders.1.model.{k}": v for k, v in second.items()})
    tensors.update({mark: torch.zeros(1) for mark in marks})
    save_file({key: value.contiguous().clone() for key, value in tensors.items()}, path)
    return path


def ldm_tensors(unet: UNet2DConditionModel) -> dict[str, Tensor]:
    """The UNet's tensors under LDM names, norms included."""
    weighted = [name for name, part in unet.named_modules() if hasattr(part, "weight")]
    special = {"conv_norm_out": "out.0"}
    for name in weighted:
        block, _, last = name.rpartition(".")
        if ".resnets." in f".{block}" and last in _RESNET_NORMS:
            conv, ldm, norm = _RESNET_NORMS[last]
            special[name] = ldm_names(weighted_layers(unet))[f"{block}.{conv}"].replace(ldm, norm)
    plain = [name for name in weighted if name not in special]
    names = {**ldm_names(plain), **special}
    return {f"{names[key.rpartition('.')[0]]}.{key.rpartition('.')[2]}": v for key, v in unet.state_dict().items()}


def weighted_layers(unet: UNet2DConditionModel) -> list[str]:
    return [name for name, part in unet.named_modules() if getattr(part, "weight", torch.zeros(1)).ndim in (2, 4)]


def _unet(family: Family) -> UNet2DConditionModel:
    attended = ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D")
    plain = ("DownBlock2D", "UpBlock2D")
    # SD attends on the upper levels, SDXL on the lower ones.
    kinds = (attended, plain) if family is not SDXL else (plain, attended)
    widths = (32, 64) if family is not SDXL else (32, 128)
    extra = {} if family is SD1 else {"use_linear_projection": True}
    if family is SDXL:
        extra |= {"addition_embed_type": "text_time", "addition_time_embed_dim": 256, "transformer_layers_per_block": 2}
        extra |= {"projection_class_embeddings_input_dim": SECOND_WIDTH + 6 * 256}
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=widths,
        layers_per_block=1,
        down_block_types=tuple(down for down, _ in kinds),
        up_block_types=tuple(up for _, up in reversed(kinds)),
        cross_attention_dim=TEXT_WIDTH + (SECOND_WIDTH if family is SDXL else 0),
        attention_head_dim=8 if family is SD1 else tuple(max(1, width // 64) for width in widths),
        **extra,
    )


def _vae(family: Family) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(32, 32, 32, 64),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        sample_size=64,
        scaling_factor=family.latent_scale,
    )


def _text_config(activation: str, width: int = TEXT_WIDTH) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=514,
        hidden_size=width,
        projection_dim=width,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=1,
        max_position_embeddings=77,
        hidden_act=activation,
        bos_token_id=512,
        eos_token_id=513,
    )


def _text_tensors(encoder: torch.nn.Module) -> dict[str, Tensor]:
    """With the inner `text_model.` that transformers' newest text model has no more."""
    return {
        key if key.startswith("text_") else f"text_model.{key}": value
        for key, value in encoder.state_dict().items()
        if "position_ids" not in key
    }


def _open_clip(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """transformers' names -> OpenCLIP's, where q, k and v are one tensor and the projection is transposed."""
    renamed = {}
    for key, value in tensors.items():
        new = key.removeprefix("text_model.")
        for theirs, open_clips in _OPEN_CLIP_NAMES:
            new = new.replace(theirs, open_clips)
        if match := re.fullmatch(r"(.*)\.self_attn\.q_proj\.(weight|bias)", new):
            parts = [tensors[key.replace("q_proj", f"{part}_proj")] for part in "qkv"]
            renamed[f"{match[1]}.attn.in_proj_{match[2]}"] = torch.cat(parts)
        elif new == "text_projection.weight":
            renamed["text_projection"] = value.T
        elif ".self_attn." not in new:
            renamed[new] = value
    return renamed


def _ldm_vae(vae: AutoencoderKL) -> dict[str, Tensor]:
    tensors = {}
    for key, value in vae.state_dict().items():
        for pattern, ldm in _VAE_NAMES:
            key = re.sub(pattern, ldm, key)
        # LDM counts the decoder's levels from the picture.
        key = re.sub(r"up_blocks\.(\d+)\.resnets\.(\d+)", lambda m: f"up.{3 - int(m[1])}.block.{m[2]}", key)
        key = re.sub(r"up_blocks\.(\d+)\.upsamplers\.0\.conv", lambda m: f"up.{3 - int(m[1])}.upsample.conv", key)
        is_attention = re.search(r"attn_1\.(q|k|v|proj_out)\.weight", key)
        tensors[key] = value[:, :, None, None] if is_attention else value
    return tensors
