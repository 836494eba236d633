"""The model families we train: what differs between them, in one table."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class UNetShape:
    """The measures of a UNet, which determine every layer.

    Attributes:
        channels: width of each level, from the full-sized latents down.
        res_blocks: residual blocks of a level in the down path; the up path has one more.
        depths: transformer blocks behind each residual block, by level; 0 for levels without attention.
        middle_depth: transformer blocks in the middle.
        context_dim: width of the text context.
        heads: attention heads, by level.
        linear_projection: the transformers' projections are linear layers, not 1×1 convolutions.
        pooled_dim: width of pooled text and size embeddings; 0 for families without them.
        latent_channels: of input and output.
    """

    channels: tuple[int, ...]
    res_blocks: int
    depths: tuple[int, ...]
    middle_depth: int
    context_dim: int
    heads: tuple[int, ...]
    linear_projection: bool = False
    pooled_dim: int = 0
    latent_channels: int = 4


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
        unet: the measures of its UNet. Small or distilled checkpoints differ: `MemoryProfile.shape` has theirs.
        text_encoders: (width, layers) of each.
    """

    key: str
    label: str
    native_size_px: int
    latent_scale: float
    context_dim: int
    base_model_version: str
    architecture: str
    card_version: str
    unet: UNetShape
    text_encoders: tuple[tuple[int, int], ...]


# Published configurations of the three base models.
_LEVELS = (320, 640, 1280, 1280)
_SD1_UNET = UNetShape(_LEVELS, 2, (1, 1, 1, 0), 1, 768, (8, 8, 8, 8))
_SD2_UNET = UNetShape(_LEVELS, 2, (1, 1, 1, 0), 1, 1024, (5, 10, 20, 20), linear_projection=True)
_SDXL_UNET = UNetShape(_LEVELS[:3], 2, (0, 2, 10), 10, 2048, (5, 10, 20), linear_projection=True, pooled_dim=2816)

SD1 = Family("sd1", "SD 1.x", 512, 0.18215, 768, "sd_v1", "stable-diffusion-v1/lora", "SD1", _SD1_UNET, ((768, 12),))
SD2 = Family(
    "sd2",
    "SD 2.x",
    768,
    0.18215,
    1024,
    "sd_v2",
    "stable-diffusion-v2-768-v/lora",
    "SD2",
    _SD2_UNET,
    ((1024, 23),),
)
SDXL = Family(
    "sdxl",
    "SDXL",
    1024,
    0.13025,
    2048,
    "sdxl_base_v1-0",
    "stable-diffusion-xl-v1-base/lora",
    "SDXL",
    _SDXL_UNET,
    ((768, 12), (1280, 32)),
)

FAMILIES: dict[str, Family] = {family.key: family for family in (SD1, SD2, SDXL)}
