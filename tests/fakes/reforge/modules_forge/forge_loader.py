"""Loads a checkpoint: A1111's model around ComfyUI's UNet, text encoders and VAE.

Here a file is JSON that names the family and the seed of its random weights.
"""

import json

import torch
from ldm_patched.ldm.models.autoencoder import AutoencoderKL
from ldm_patched.ldm.modules.diffusionmodules.unet import Timestep, UNetModel
from ldm_patched.modules import model_base, ops
from ldm_patched.modules.args_parser import args
from ldm_patched.modules.model_patcher import CLIP, VAE, ModelPatcher
from modules import shared
from modules.sd_hijack import model_hijack
from torch import nn

from modules_forge import forge_clip
from tests.fakes.tiny_clip import CLIPTextModel, CLIPTokenizer

# Two channels in a group: the norm of a single one would cancel what the time embedding adds.
_UNET = {
    "in_channels": 4, "out_channels": 4, "model_channels": 64, "num_res_blocks": 1, "channel_mult": [1, 2],
    "transformer_depth": [1, 0], "middle_depth": 1, "context_dim": 16, "num_heads": 8,
}  # fmt: skip
_LINEAR = {"use_linear_in_transformer": True, "num_heads": None, "num_head_channels": 64}
_UNETS = {
    "sd1": _UNET,
    "sd2": {**_UNET, **_LINEAR},
    "sdxl": {
        **_UNET, **_LINEAR, "transformer_depth": [0, 2], "middle_depth": 2, "context_dim": 40,
        "adm_in_channels": 24 + 6 * 256,
    },
}  # fmt: skip
_TEXTS = {"sd1": {"clip_l": 16}, "sd2": {"clip_h": 16}, "sdxl": {"clip_l": 16, "clip_g": 24}}


class ForgeSD:
    def __init__(self, unet, clip, vae, clipvision=None):
        self.unet, self.clip, self.vae, self.clipvision = unet, clip, vae, clipvision

    def shallow_copy(self):
        return ForgeSD(self.unet, self.clip, self.vae, self.clipvision)


class Sizes(nn.Module):
    timestep = Timestep(256)


class LatentDiffusion(nn.Module):
    """SD 1.x and 2.x: A1111's names for what ComfyUI holds."""

    current_lora_hash, ztsnr = str([]), False

    def __init__(self, objects, scale):
        super().__init__()
        self.forge_objects, self.scale = objects, scale
        self.forge_objects_original = objects.shallow_copy()
        self.forge_objects_after_applying_lora = objects.shallow_copy()
        self.model = nn.Module()
        self.model.diffusion_model = objects.unet.model.diffusion_model
        self.first_stage_model = objects.vae.first_stage_model

    def get_learned_conditioning(self, prompts):
        return self.cond_stage_model(prompts)

    @torch.inference_mode()
    def encode_first_stage(self, x):
        return (self.forge_objects.vae.encode(x.movedim(1, -1) * 0.5 + 0.5) * self.scale).to(x)

    @torch.inference_mode()
    def decode_first_stage(self, x):
        return (self.forge_objects.vae.decode(x / self.scale).movedim(-1, 1) * 2.0 - 1.0).to(x)


class DiffusionEngine(LatentDiffusion):
    """SDXL."""

    def get_learned_conditioning(self, prompts):
        first, second, sizes = list(self.conditioner.embedders)[:3]
        (hidden, pooled), opts = second(prompts), shared.opts
        height, width = getattr(prompts, "height", 1024), getattr(prompts, "width", 1024)
        numbers = torch.tensor([height, width, opts.sdxl_crop_top, opts.sdxl_crop_left, height, width])
        embedded = sizes.timestep(numbers.float()).flatten()[None].expand(len(prompts), -1)
        context = torch.cat([first(prompts), hidden], dim=2)
        return {"crossattn": context, "vector": torch.cat([pooled, embedded.to(pooled)], dim=1)}


@torch.no_grad()
def load_model_for_a1111(info):
    with open(info.filename, encoding="utf8") as file:
        facts = json.load(file)
    family, generator = facts["family"], torch.Generator().manual_seed(facts["seed"])
    storage = torch.float8_e4m3fn if args.unet_in_fp8_e4m3fn else torch.float32
    measures = {**_UNETS[family], "in_channels": facts.get("in_channels", 4)}
    unet = _make(lambda: UNetModel(**measures), storage, generator)
    texts = nn.Module()
    for name, width in _TEXTS[family].items():
        texts.add_module(name, nn.Module())
        make_text = lambda width=width: CLIPTextModel(width, 4, projection=True)  # noqa: E731
        getattr(texts, name).transformer = _make(make_text, torch.float32, generator)
    vae = _make(AutoencoderKL, torch.float32, generator)
    vae.regularization.sample = facts.get("samples", True)
    scale = 0.13025 if family == "sdxl" else 0.18215
    base = model_base.BaseModel(unet, model_base.sampling_of(facts.get("prediction", "EPS")), scale)
    objects = ForgeSD(ModelPatcher(base), CLIP(texts, CLIPTokenizer()), VAE(vae))
    model = (DiffusionEngine if family == "sdxl" else LatentDiffusion)(objects, scale)
    _give_text_encoders(model, family, texts)
    model.ztsnr, model.is_sdxl = facts.get("ztsnr", False), family == "sdxl"
    return model.eval()


def _give_text_encoders(model, family, texts):
    wrap = lambda kind, name: kind(getattr(texts, name), CLIPTokenizer(), model_hijack)  # noqa: E731
    if family == "sdxl":
        first, second = wrap(forge_clip.CLIP_SD_XL_L, "clip_l"), wrap(forge_clip.CLIP_SD_XL_G, "clip_g")
        model.conditioner = nn.Module()
        model.conditioner.embedders = nn.ModuleList([first, second, Sizes(), Sizes(), Sizes()])
        model.cond_stage_model = first
    elif family == "sd2":
        model.cond_stage_model = wrap(forge_clip.CLIP_SD_21_H, "clip_h")
    else:
        model.cond_stage_model = wrap(forge_clip.CLIP_SD_15_L, "clip_l")


def _make(build, storage, generator):
    with ops.use_patched_ops(ops.manual_cast):
        model = build()
    state = {name: _draw(name, value, generator) for name, value in model.state_dict().items()}
    model.load_state_dict(state)
    return model.to(storage).eval().requires_grad_(False)


def _draw(name, value, generator):
    if "norm" in name or value.ndim < 2:
        return torch.ones_like(value) if name.endswith("weight") else torch.zeros_like(value)
    scale = 1.0 if "embedding" in name else value[0].numel() ** -0.5
    return torch.randn(value.shape, generator=generator) * scale
