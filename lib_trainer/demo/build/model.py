"""The embedded model's parts: how they are built, normalized and stored as a diffusers folder."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from lib_trainer.demo.build.tokenizer import CONTEXT_TOKENS, open_tokenizer
from lib_trainer.host.standalone.host import WEIGHTS
from lib_trainer.models.families import SD1

CONTEXT_DIM = 128

VAE_CONFIG = {
    "block_out_channels": (16, 32, 64, 96),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 1,
    "latent_channels": 4,
    # Large groups: normalising few channels at a time washes out flat colours.
    "norm_num_groups": 2,
    "sample_size": 64,
    "scaling_factor": SD1.latent_scale,
}
UNET_CONFIG = {
    "sample_size": 8,
    "block_out_channels": (64, 96),
    "down_block_types": ("CrossAttnDownBlock2D",) * 2,
    "up_block_types": ("CrossAttnUpBlock2D",) * 2,
    "layers_per_block": 1,
    "cross_attention_dim": CONTEXT_DIM,
    # By this name SD 1's configuration means the number of heads.
    "attention_head_dim": 4,
    "norm_num_groups": 16,
}
TEXT_CONFIG = {
    "hidden_size": CONTEXT_DIM,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": CONTEXT_TOKENS,
}


def new_vae() -> AutoencoderKL:
    """An untrained autoencoder, 64×64 px -> (4, 8, 8) latents."""
    return AutoencoderKL(**VAE_CONFIG)


def new_unet() -> UNet2DConditionModel:
    """An untrained UNet: (B, 4, 8, 8), timesteps (B,), context (B, 77, CONTEXT_DIM) -> noise (B, 4, 8, 8)."""
    return UNet2DConditionModel(**UNET_CONFIG)


def new_text_encoder(tokens: int) -> CLIPTextModel:
    """An untrained text encoder for a vocabulary of `tokens`, whose last two are start and end of text."""
    ends = {"bos_token_id": tokens - 2, "eos_token_id": tokens - 1, "pad_token_id": tokens - 1}
    return CLIPTextModel(CLIPTextConfig(vocab_size=tokens, **TEXT_CONFIG, **ends))


def new_schedule() -> DDIMScheduler:
    """Stable Diffusion's noise schedule: 1000 steps, scaled linear, the noise is what is predicted."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


@torch.no_grad()
def normalize_latents(vae: AutoencoderKL, mean: Tensor, std: Tensor) -> None:
    """Change `vae` so that its latents, times its scaling factor, have mean 0 and std 1 in each channel.

    Its pictures stay the same, and its posterior becomes a point, since it was trained on means.

    Args:
        mean, std: (4,) of the means that `vae` gives now.
    """
    channels, factor = mean.numel(), 1 / (vae.config.scaling_factor * std)
    enter, leave = vae.quant_conv, vae.post_quant_conv
    leave.bias += leave.weight[:, :, 0, 0] @ mean
    leave.weight /= factor[None, :, None, None]
    enter.weight[:channels] *= factor[:, None, None, None]
    enter.bias[:channels] = (enter.bias[:channels] - mean) * factor
    # The second half of the moments is the log variance: e^-20 is a point.
    enter.weight[channels:] = 0.0
    enter.bias[channels:] = -20.0


def store_model(vae: AutoencoderKL, text_encoder: nn.Module, unet: nn.Module, folder: Path = WEIGHTS) -> None:
    """Write the model as fp16 safetensors in diffusers' layout; `folder / tokenizer` must stand already."""
    pipeline = StableDiffusionPipeline(
        vae=vae.half(),
        text_encoder=text_encoder.half(),
        tokenizer=open_tokenizer(folder / "tokenizer"),
        unet=unet.half(),
        scheduler=new_schedule(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    kept = {path: path.read_bytes() for path in (folder / "tokenizer").iterdir()}
    pipeline.to(memory_format=torch.contiguous_format).save_pretrained(folder, safe_serialization=True)
    _with_old_names(folder / "text_encoder" / "model.safetensors")
    # Newer releases save a tokenizer in one file of their own, which older ones cannot open. Both open ours.
    for path in (folder / "tokenizer").iterdir():
        path.unlink()
    for path, content in kept.items():
        path.write_bytes(content)


def _with_old_names(path: Path) -> None:
    """transformers 5 leaves `text_model.` out of a CLIP text encoder's names; older releases need it."""
    tensors = load_file(path)
    named = {f"text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in tensors.items()}
    save_file(named, path, {"format": "pt"})
