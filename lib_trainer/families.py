"""The model families we train: what differs between them, in one table."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """What is fixed for every checkpoint of one family.

    Attributes:
        key: short name used in code, recipes and on the command line.
        label: name shown to people.
        native_size_px: side of the square pictures the family was trained on.
        latent_scale: factor the VAE's latents are multiplied by.
        context_dim: width of the text context fed to cross-attention.
        base_model_version: kohya's `ss_base_model_version`.
        architecture: `modelspec.architecture` of an adapter for this family.
        card_version: the WebUI card's "sd version" value.
    """

    key: str
    label: str
    native_size_px: int
    latent_scale: float
    context_dim: int
    base_model_version: str
    architecture: str
    card_version: str


SD1 = Family("sd1", "SD 1.x", 512, 0.18215, 768, "sd_v1", "stable-diffusion-v1/lora", "SD1")
SD2 = Family("sd2", "SD 2.x", 768, 0.18215, 1024, "sd_v2", "stable-diffusion-v2-768-v/lora", "SD2")
SDXL = Family("sdxl", "SDXL", 1024, 0.13025, 2048, "sdxl_base_v1-0", "stable-diffusion-xl-v1-base/lora", "SDXL")

FAMILIES: dict[str, Family] = {family.key: family for family in (SD1, SD2, SDXL)}
