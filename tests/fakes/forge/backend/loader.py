"""Loads a checkpoint: here a JSON file that names the family and the seed of its random weights."""

import json
from types import SimpleNamespace

import torch
from tests.fakes.tiny_t5 import TextEncoder
from torch import nn

from backend.args import dynamic_args
from backend.diffusion_engine import engines
from backend.modules.k_model import KModel
from backend.modules.k_prediction import PredictionFlow
from backend.nn import flux
from backend.nn.clip import CLIPTokenizer, IntegratedCLIP
from backend.nn.unet import IntegratedUNet2DConditionModel
from backend.nn.vae import IntegratedAutoencoderKL
from backend.operations import using_forge_operations

# Two channels in a group: the norm of a single one would cancel what the time embedding adds.
_UNET = {
    "in_channels": 4, "out_channels": 4, "model_channels": 64, "num_res_blocks": [1, 1], "channel_mult": [1, 2],
    "transformer_depth": [1, 0], "transformer_depth_output": [1, 1, 0, 0], "transformer_depth_middle": 1,
}  # fmt: skip
_FAMILIES = {
    "sd1": (engines.StableDiffusion, {**_UNET, "context_dim": 16, "num_heads": 4}, 0.18215),
    "sd2": (engines.StableDiffusion2, {**_UNET, "context_dim": 16, "num_heads": 4}, 0.18215),
    "sd3": (engines.StableDiffusion3, {**_UNET, "context_dim": 16, "num_heads": 4}, 1.5305),
    "sdxl": (
        engines.StableDiffusionXL,
        {
            **_UNET, "context_dim": 40, "num_heads": 4, "use_linear_in_transformer": True,
            "adm_in_channels": 24 + 6 * 256,
            "transformer_depth": [0, 1], "transformer_depth_output": [0, 0, 1, 1], "transformer_depth_middle": 2,
        },
        0.13025,
    ),
}  # fmt: skip


@torch.inference_mode()
def forge_loader(sd, additional_state_dicts=None):
    """The engine of the checkpoint file `sd`; like all that Forge loads, its weights are inference tensors."""
    with open(sd, encoding="utf8") as file:
        facts = json.load(file)
    # Text encoders and VAE of transformers are chosen beside the checkpoint.
    assert "lacks" not in facts, f"You do not have {facts['lacks']} state dict!"
    if facts["family"] not in _FAMILIES:
        return _load_transformer(facts)
    engine, unet_config, latent_scale = _FAMILIES[facts["family"]]
    generator = torch.Generator().manual_seed(facts["seed"])
    storage = dynamic_args["forge_unet_storage_dtype"] or getattr(torch, facts.get("storage", "float32"))
    cast = storage != torch.float32
    dense = torch.float16 if storage == "nf4" else storage
    unet = _make(lambda: IntegratedUNet2DConditionModel(**unet_config), dense, cast, generator)
    if storage == "nf4":
        from backend.operations_bnb import quantize_linears

        quantize_linears(unet, storage)
    if facts.get("quantized"):
        from backend.quant_ops import quantize_linears as in_eight_bits

        in_eight_bits(unet)
    config = {**unet_config, "in_channels": facts.get("in_channels", 4)}
    unet.storage_dtype, unet.computation_dtype, unet.config = storage, torch.float32, config
    widths = {"clip_l": 16, "clip_g": 24} if facts["family"] == "sdxl" else {"clip_l": 16}
    encoders = {
        name: _make(lambda width=width: IntegratedCLIP(width, 3), torch.float16, True, generator)
        for name, width in widths.items()
    }
    scheduler = {"prediction_type": facts.get("prediction_type", "epsilon")}
    config = SimpleNamespace(inpaint=facts.get("inpaint", False), ztsnr=facts.get("ztsnr", False))
    parts = {
        "unet": KModel(unet, scheduler, config=config),
        "vae": _make(lambda: IntegratedAutoencoderKL(4, latent_scale), torch.float32, False, generator),
        "text_encoders": nn.ModuleDict(encoders),
        "tokenizer": CLIPTokenizer(),
    }
    return engine(config, parts)


def _load_transformer(facts):
    generator, kind = torch.Generator().manual_seed(facts["seed"]), "Flux"
    if facts["family"] == "flux":
        engine, build = engines.Flux, lambda: flux.IntegratedFluxTransformer2DModel(32, 24, 16)
        texts, vae = {"clip_l": lambda: IntegratedCLIP(16, 3), "t5xxl": lambda: TextEncoder(24)}, None
    else:
        from backend.diffusion_engine.transformers import PARTS

        engine, build, vae, kind = PARTS[facts["family"]]
        texts = {"text": lambda: TextEncoder(24)}
    storage = dynamic_args["forge_unet_storage_dtype"] or torch.float32
    model = _make(build, storage, storage != torch.float32, generator)
    model.storage_dtype, model.computation_dtype, model.config = storage, torch.float32, {}
    config = type(kind, (SimpleNamespace,), {})(inpaint=False, ztsnr=False)
    encoders = {name: _make(each, torch.float32, True, generator) for name, each in texts.items()}
    parts = {
        "unet": KModel(model, None, PredictionFlow(), config),
        "vae": _make(vae or (lambda: IntegratedAutoencoderKL(16, 0.36)), torch.float32, False, generator),
        "text_encoders": nn.ModuleDict(encoders),
        "tokenizer": CLIPTokenizer(),
    }
    return engine(config, parts)


def _make(build, dtype, manual_cast, generator):
    template = build()
    weights = {name: _draw(name, value, generator) for name, value in template.state_dict().items()}
    with using_forge_operations(device=torch.device("cpu"), dtype=dtype, manual_cast_enabled=manual_cast):
        model = build().to(dtype=dtype)
    model.load_state_dict(weights)
    return model.eval()


def _draw(name, value, generator):
    if "norm" in name or value.ndim < 2:
        return torch.ones_like(value) if name.endswith("weight") else torch.zeros_like(value)
    scale = 1.0 if "embedding" in name else value[0].numel() ** -0.5
    return torch.randn(value.shape, generator=generator) * scale
