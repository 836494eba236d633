"""Configurations of a Stable Diffusion single file, read from the shapes of its tensors; nothing is downloaded.

Checkpoints of one family differ in shapes only, so the shapes hold every number that diffusers and transformers need,
except the number of attention heads (fixed by the family) and what the UNet predicts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib_trainer.errors import UserError
from lib_trainer.models.families import SD1, SD2, SDXL, Family, UNetShape
from lib_trainer.utils.safetensors_header import HeaderError, read_header

Shapes = Mapping[str, tuple[int, ...]]
Config = dict[str, Any]

UNET, VAE = "model.diffusion_model.", "first_stage_model."
_CLIP = {SD1: "cond_stage_model.transformer.text_model.", SDXL: "conditioner.embedders.0.transformer.text_model."}
_OPEN_CLIP = {SD2: "cond_stage_model.model.", SDXL: "conditioner.embedders.1.model."}
_PIPELINES = {SD1: "StableDiffusionPipeline", SD2: "StableDiffusionPipeline", SDXL: "StableDiffusionXLPipeline"}
_OTHER_KINDS = {"double_blocks.": "a Flux", "joint_blocks.": "an SD 3", "transformer_blocks.": "another kind of"}
_BLOCK_KEYS = ("0.weight", "0.op.weight", "0.in_layers.2.weight")
# diffusers leaves out the last of SD 2's 24 text layers: the family was trained on the one before.
_SD2_TEXT_LAYERS = 23


@dataclass(frozen=True)
class SingleFile:
    """How to build the parts of a checkpoint.

    Attributes:
        pipeline: diffusers' class for the whole.
        configs: `unet`, `vae`, `text_encoder`, `text_encoder_2` -> its configuration, `_class_name` included.
        marks: names of empty tensors that say how it was trained: `v_pred`, `ztsnr`.
    """

    family: Family
    pipeline: str
    configs: dict[str, Config]
    marks: frozenset[str]


def read_single_file(path: Path) -> SingleFile:
    """Which family a .safetensors file is of, and how its parts are built.

    Raises:
        UserError: for a file that is not a whole SD 1.x, SD 2.x or SDXL checkpoint.
    """
    shapes = _read_shapes(path)
    family = _family_of(path.name, shapes)
    configs = {"unet": unet_config(shapes, family), "vae": vae_config(shapes, family)}
    # SD 2 has no OpenAI encoder, SD 1 no OpenCLIP one; SDXL has both.
    if family in _CLIP:
        configs["text_encoder"] = _clip_config(shapes, _CLIP[family])
    if family in _OPEN_CLIP:
        config = _open_clip_config(shapes, _OPEN_CLIP[family], with_projection=family is SDXL)
        if family is SD2:
            # The file holds the unused layer all the same.
            config["num_hidden_layers"] = min(config["num_hidden_layers"], _SD2_TEXT_LAYERS)
        configs["text_encoder" if family is SD2 else "text_encoder_2"] = config
    return SingleFile(family, _PIPELINES[family], configs, frozenset(shapes) & {"v_pred", "ztsnr"})


def unet_config(shapes: Shapes, family: Family) -> Config:
    """Arguments of diffusers' UNet2DConditionModel."""
    levels = _levels(shapes)
    widths = [shapes[f"{UNET}input_blocks.{level[0]}.0.in_layers.2.weight"][0] for level in levels]
    depths = [_depth(shapes, f"input_blocks.{level[0]}.1.") for level in levels]
    middle = _depth(shapes, "middle_block.1.")
    attends = [f"{UNET}input_blocks.{level[0]}.1.proj_in.weight" for level in levels]
    # SDXL's first level has no attention.
    first = next(name for name in attends if name in shapes)
    config = {
        "_class_name": "UNet2DConditionModel",
        "sample_size": family.native_size_px // 8,
        "block_out_channels": widths,
        "layers_per_block": len(levels[0]),
        "down_block_types": ["CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in depths],
        "up_block_types": ["CrossAttnUpBlock2D" if depth else "UpBlock2D" for depth in reversed(depths)],
        # diffusers wants a depth for levels without attention too, and takes the last level's for the middle block.
        "transformer_layers_per_block": [depth or middle for depth in depths],
        "cross_attention_dim": shapes[f"{UNET}middle_block.1.transformer_blocks.0.attn2.to_k.weight"][1],
        "use_linear_projection": len(shapes[first]) == 2,
        # By this name diffusers means the number of heads.
        "attention_head_dim": 8 if family is SD1 else [_heads(width) for width in widths],
    }
    if family is SDXL:
        config["addition_embed_type"] = "text_time"
        config["addition_time_embed_dim"] = 256
        config["projection_class_embeddings_input_dim"] = shapes[f"{UNET}label_emb.0.0.weight"][1]
    return config


def unet_shape(config: Mapping[str, Any], family: Family) -> UNetShape:
    """The measures of a UNet, from the configuration that diffusers has of it."""
    levels = len(config["block_out_channels"])

    def by_level(value: int | Sequence[int]) -> tuple[int, ...]:
        return (value,) * levels if isinstance(value, int) else tuple(value)

    depths = by_level(config["transformer_layers_per_block"])
    attends = ["CrossAttn" in name for name in config["down_block_types"]]
    pooled_dim = config.get("projection_class_embeddings_input_dim") or 0
    return UNetShape(
        tuple(config["block_out_channels"]),
        by_level(config["layers_per_block"])[0],
        tuple(depth if has else 0 for depth, has in zip(depths, attends, strict=True)),
        depths[-1],
        config["cross_attention_dim"],
        # diffusers names the number of heads `attention_head_dim`.
        by_level(config.get("num_attention_heads") or config["attention_head_dim"]),
        linear_projection=bool(config["use_linear_projection"]),
        pooled_dim=pooled_dim if family is SDXL else 0,
        latent_channels=config.get("in_channels", 4),
    )


def vae_config(shapes: Shapes, family: Family) -> Config:
    """Arguments of diffusers' AutoencoderKL."""
    block = f"{VAE}encoder.down.{{}}.block.{{}}.conv2.weight"
    # Levels and blocks are numbered from 0 without gaps, so counting stops at the first that is missing.
    count = _count(lambda level: block.format(level, 0) in shapes)
    widths = [shapes[block.format(level, 0)][0] for level in range(count)]
    return {
        "_class_name": "AutoencoderKL",
        "block_out_channels": widths,
        "down_block_types": ["DownEncoderBlock2D"] * count,
        "up_block_types": ["UpDecoderBlock2D"] * count,
        "layers_per_block": _count(lambda index: block.format(0, index) in shapes),
        "latent_channels": shapes[f"{VAE}decoder.conv_in.weight"][1],
        "sample_size": family.native_size_px,
        "scaling_factor": family.latent_scale,
    }


def _read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    try:
        return read_header(path).shapes
    except (OSError, HeaderError) as error:
        raise UserError(
            f"{path.name} cannot be read as a checkpoint: {error}.", "Choose a .safetensors file or a diffusers folder."
        ) from error


def _family_of(name: str, shapes: Shapes) -> Family:
    first = shapes.get(f"{UNET}input_blocks.0.0.weight")
    if first is None:
        kind = next((kind for part, kind in _OTHER_KINDS.items() if any(part in key for key in shapes)), None)
        what = f"is {kind} checkpoint, which cannot be trained here" if kind else "holds no Stable Diffusion UNet"
        raise UserError(f"{name} {what}.", "Choose an SD 1.x, SD 2.x or SDXL checkpoint.")
    # Inpainting UNets take 9 channels, instruct-pix2pix 8.
    if first[1] != 4:
        raise UserError(f"{name} is an inpainting checkpoint.", "Train on the model it was made from.")
    # The UNets of small checkpoints look alike; the text encoders tell the families apart.
    parts = {SD1: f"{_CLIP[SD1]}embeddings.", SD2: _OPEN_CLIP[SD2], SDXL: f"{_CLIP[SDXL]}embeddings."}
    family = next((family for family, part in parts.items() if any(key.startswith(part) for key in shapes)), None)
    if family is None or not any(key.startswith(VAE) for key in shapes):
        missing = "an autoencoder" if family else "the text encoders of SD 1.x, SD 2.x or SDXL"
        raise UserError(f"{name} is not a whole checkpoint: it lacks {missing}.", "Choose a file that holds all parts.")
    return family


def _levels(shapes: Shapes) -> list[list[int]]:
    """Indices of the input blocks that hold a residual block, one list a level."""
    levels: list[list[int]] = [[]]
    for number in range(1, _count(lambda n: any(f"{UNET}input_blocks.{n}.{key}" in shapes for key in _BLOCK_KEYS))):
        if f"{UNET}input_blocks.{number}.0.op.weight" in shapes:
            levels.append([])
        else:
            levels[-1].append(number)
    return levels


def _depth(shapes: Shapes, part: str) -> int:
    return _count(lambda index: f"{UNET}{part}transformer_blocks.{index}.attn1.to_q.weight" in shapes)


def _clip_config(shapes: Shapes, prefix: str) -> Config:
    layer = f"{prefix}encoder.layers.{{}}.mlp.fc1.weight"
    return _text_config(
        "CLIPTextModel",
        tokens=shapes[f"{prefix}embeddings.token_embedding.weight"],
        positions=shapes[f"{prefix}embeddings.position_embedding.weight"][0],
        layers=_count(lambda number: layer.format(number) in shapes),
        intermediate=shapes[layer.format(0)][0],
        activation="quick_gelu",
    )


def _open_clip_config(shapes: Shapes, prefix: str, *, with_projection: bool) -> Config:
    layer = f"{prefix}transformer.resblocks.{{}}.mlp.c_fc.weight"
    return _text_config(
        "CLIPTextModelWithProjection" if with_projection else "CLIPTextModel",
        tokens=shapes[f"{prefix}token_embedding.weight"],
        positions=shapes[f"{prefix}positional_embedding"][0],
        layers=_count(lambda number: layer.format(number) in shapes),
        intermediate=shapes[layer.format(0)][0],
        activation="gelu",
    )


def _text_config(
    name: str, *, tokens: tuple[int, ...], positions: int, layers: int, intermediate: int, activation: str
) -> Config:
    vocabulary, width = tokens
    return {
        "_class_name": name,
        "model_type": "clip_text_model",
        "vocab_size": vocabulary,
        "hidden_size": width,
        "projection_dim": width,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": _heads(width),
        "max_position_embeddings": positions,
        "hidden_act": activation,
        # CLIP's start and end marks are the last two tokens of its vocabulary.
        "bos_token_id": vocabulary - 2,
        "eos_token_id": vocabulary - 1,
    }


def _heads(width: int) -> int:
    # SD 2, SDXL and all CLIP encoders fix the width of a head at 64.
    return max(1, width // 64)


def _count(exists: Callable[[int], bool]) -> int:
    """How many of 0, 1, 2 … exist before the first that does not."""
    number = 0
    while exists(number):
        number += 1
    return number
