"""The embedded model's parts: how they are built, stored and loaded."""

from __future__ import annotations

from diffusers import AutoencoderKL

VAE_CONFIG = {
    "block_out_channels": (16, 32, 48, 64),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 8,
    "sample_size": 64,
}


def new_vae() -> AutoencoderKL:
    """An untrained autoencoder, 64×64 px -> (4, 8, 8) latents."""
    return AutoencoderKL(**VAE_CONFIG)
