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
class TransformerShape:
    """The measures of a diffusion transformer; every layer follows from them.

    Attributes:
        width: of the hidden states.
        heads: of attention.
        mlp_width: inside the feed-forward layers.
        is_gated: the feed-forward layers have a gate as wide as they are.
        double: blocks with separate weights for picture and text.
        single: blocks with attention and feed-forward side by side.
        joint: blocks with one set of weights for picture and text.
        crossed: blocks in which the picture attends to itself, then to the text.
        refiners: blocks before the others, that are not trained.
        modulation: parameters that scale and shift, as multiples of width²: in each single block, in each block of
            another kind, and of all blocks together with the embedders.
        context_dim: width of the text.
        text_tokens: a caption's usual length.
        kv_width: width of keys and values; 0 is `width`.
        latent_channels: of input and output.
        patch: side of what becomes one token, in latent cells.
    """

    width: int
    heads: int
    mlp_width: int
    context_dim: int
    text_tokens: int
    double: int = 0
    single: int = 0
    joint: int = 0
    crossed: int = 0
    refiners: int = 0
    is_gated: bool = False
    modulation: tuple[float, float, float] = (0.0, 0.0, 0.0)
    kv_width: int = 0
    latent_channels: int = 16
    patch: int = 2


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
        shape: the measures of its UNet or transformer. Small or distilled checkpoints differ: `MemoryProfile.shape`
            has theirs.
        text_encoders: (width, layers) of each that can be trained.
        latent_px: side of a latent cell, in pixels.
        flow_shift: `discrete_flow_shift` that published trainers use; 0 for families that predict noise or velocity
            by timesteps.
        distilled_guidance: the model takes the guidance as an input.
        cfg_scale: what its pictures are usually drawn with; 1 for distilled models.
    """

    key: str
    label: str
    native_size_px: int
    latent_scale: float
    context_dim: int
    base_model_version: str
    architecture: str
    card_version: str
    shape: UNetShape | TransformerShape
    text_encoders: tuple[tuple[int, int], ...] = ()
    latent_px: int = 8
    flow_shift: float = 0.0
    distilled_guidance: bool = False
    cfg_scale: float = 7.0

    @property
    def is_flow(self) -> bool:
        """Whether it is trained by flow matching, as diffusion transformers are."""
        return self.flow_shift > 0

    def latent_values(self, pixels: int) -> int:
        """How many values encode a picture of this many pixels."""
        return pixels // self.latent_px**2 * self.shape.latent_channels


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


def _transformer(
    key: str,
    label: str,
    version: str,
    architecture: str,
    card_version: str,
    shape: TransformerShape,
    flow_shift: float,
    *,
    latent_px: int = 8,
    distilled_guidance: bool = False,
    cfg_scale: float = 1.0,
) -> Family:
    """A family that was trained on pictures of 1024×1024 px; its host scales the latents."""
    return Family(
        key, label, 1024, 1.0, shape.context_dim, version, architecture, card_version, shape, (),
        latent_px, flow_shift, distilled_guidance, cfg_scale,
    )  # fmt: skip


# Versions and architectures are those that sd-scripts and musubi-tuner write, and so are the shifts: docs/recipes.md.
FLUX = _transformer(
    "flux", "Flux.1", "flux1", "flux-1-dev/lora", "Flux",
    TransformerShape(3072, 24, 12288, 4096, 256, double=19, single=38, modulation=(3.0, 12.0, 5.0)),
    3.1582, distilled_guidance=True,
)  # fmt: skip
CHROMA = _transformer(
    "chroma", "Chroma", "chroma", "chroma/lora", "Chroma",
    TransformerShape(3072, 24, 12288, 4096, 256, double=19, single=38, modulation=(0.0, 0.0, 27.8)), 1.0, cfg_scale=4.0,
)  # fmt: skip
KLEIN4B = _transformer(
    "klein4b", "FLUX.2 Klein 4B", "flux_2_klein_4b", "Flux.2-klein-4b/lora", "klein",
    TransformerShape(
        3072, 24, 9216, 7680, 512, double=5, single=20, is_gated=True, modulation=(0.0, 0.0, 18.0),
        latent_channels=128, patch=1,
    ),
    3.1582, latent_px=16,
)  # fmt: skip
KLEIN9B = _transformer(
    "klein9b", "FLUX.2 Klein 9B", "flux_2_klein_9b", "Flux.2-klein-9b/lora", "klein",
    TransformerShape(
        4096, 32, 12288, 12288, 512, double=8, single=24, is_gated=True, modulation=(0.0, 0.0, 18.0),
        latent_channels=128, patch=1,
    ),
    3.1582, latent_px=16,
)  # fmt: skip
ZIMAGE = _transformer(
    "zimage", "Z-Image", "z_image", "Z-Image/lora", "zit",
    TransformerShape(3840, 30, 10240, 2560, 64, joint=30, refiners=4, is_gated=True, modulation=(0.0, 0.267, 0.1)), 2.0,
)  # fmt: skip
LUMINA2 = _transformer(
    "lumina2", "Lumina 2", "lumina2", "lumina-2/lora", "lumina",
    TransformerShape(
        2304, 24, 9216, 2304, 256, joint=26, refiners=4, is_gated=True, modulation=(0.0, 1.778, 0.5), kv_width=768
    ),
    6.0, cfg_scale=4.0,
)  # fmt: skip
ANIMA = _transformer(
    "anima", "Anima", "anima", "anima-preview/lora", "anima",
    TransformerShape(2048, 16, 8192, 1024, 512, crossed=28, modulation=(0.0, 1.5, 1.0)), 1.0, cfg_scale=4.5,
)  # fmt: skip

UNET_FAMILIES = (SD1, SD2, SDXL)
TRANSFORMER_FAMILIES = (FLUX, CHROMA, KLEIN4B, KLEIN9B, ZIMAGE, LUMINA2, ANIMA)
FAMILIES: dict[str, Family] = {family.key: family for family in (*UNET_FAMILIES, *TRANSFORMER_FAMILIES)}
