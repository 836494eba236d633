"""Text-to-image with diffusers' schedulers, on the same parts that training uses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
)
from torch import Tensor

from lib_trainer.errors import UserError
from lib_trainer.host.base import GenerateRequest
from lib_trainer.host.standalone.model import StandaloneModel
from lib_trainer.models.base import SizeCond, TextCond

if TYPE_CHECKING:
    from PIL.Image import Image

SAMPLERS = {
    "Euler": EulerDiscreteScheduler,
    "Euler a": EulerAncestralDiscreteScheduler,
    "DDIM": DDIMScheduler,
    "DPM++ 2M": DPMSolverMultistepScheduler,
}
_LATENT_CELL_PX = 8


def check_request(request: GenerateRequest) -> None:
    """Raises UserError for a size or sampler that cannot be drawn with."""
    if request.width_px % _LATENT_CELL_PX or request.height_px % _LATENT_CELL_PX:
        raise UserError(f"{request.width_px}×{request.height_px} px is not a valid size.", "Use multiples of 8.")
    if request.sampler and request.sampler not in SAMPLERS:
        raise UserError(f"There is no sampler {request.sampler!r} here.", f"Choose one of {', '.join(SAMPLERS)}.")


@torch.no_grad()
def draw(model: StandaloneModel, prompts: Sequence[str], request: GenerateRequest) -> list[Image]:
    """`request.batch_size` pictures of each prompt; picture i of a prompt is the one that seed + i draws alone.

    Guidance as in Ho & Salimans, "Classifier-Free Diffusion Guidance" (2022). `request.prompt` is ignored.
    """
    each, guided = request.batch_size, request.cfg_scale != 1
    without = [request.negative_prompt] * len(prompts) if guided else []
    # Before the UNet moves in: text encoders and UNet need not share the device.
    text = _repeated(model.encode_text([*without, *prompts], 1), each)
    sizes = _sizes(request, len(text.context), model.device)
    model.move(model.unet)
    dtype = model.unet.dtype
    text = _on_device(text, model.device, dtype)
    generators = [torch.Generator().manual_seed(request.seed + index) for _ in prompts for index in range(each)]
    scheduler: Any = SAMPLERS[request.sampler or "Euler"].from_config(model.pipeline.scheduler.config)
    scheduler.set_timesteps(request.steps, device=model.device)
    shape = (1, 4, request.height_px // _LATENT_CELL_PX, request.width_px // _LATENT_CELL_PX)
    # On the CPU, so that every device draws the same picture from a seed.
    noise = torch.cat([torch.randn(shape, generator=generator) for generator in generators])
    latents = noise.to(model.device) * scheduler.init_noise_sigma
    for timestep in scheduler.timesteps:
        scaled = scheduler.scale_model_input(latents, timestep).to(dtype)
        scaled = torch.cat([scaled, scaled]) if guided else scaled
        predicted = model.predict(scaled, timestep.expand(len(scaled)), text, sizes)
        if guided:
            unguided, with_prompt = predicted.chunk(2)
            predicted = unguided + request.cfg_scale * (with_prompt - unguided)
        latents = scheduler.step(predicted, timestep, latents, **_noise_source(scheduler, generators)).prev_sample
    return _decode(model, latents)


def _decode(model: StandaloneModel, latents: Tensor) -> list[Image]:
    vae = model.pipeline.vae
    model.move(vae)
    decoded = vae.decode(latents.float() / vae.config.scaling_factor).sample
    return model.pipeline.image_processor.postprocess(decoded.cpu(), output_type="pil")


def _noise_source(scheduler: Any, generators: list[torch.Generator]) -> dict[str, Any]:
    """Only the ancestral sampler draws noise at each step; every picture's comes from its own seed."""
    return {"generator": generators} if isinstance(scheduler, EulerAncestralDiscreteScheduler) else {}


def _repeated(text: TextCond, count: int) -> TextCond:
    pooled = None if text.pooled is None else text.pooled.repeat_interleave(count, dim=0)
    return TextCond(text.context.repeat_interleave(count, dim=0), pooled)


def _on_device(text: TextCond, device: torch.device, dtype: torch.dtype) -> TextCond:
    pooled = None if text.pooled is None else text.pooled.to(device, dtype)
    return TextCond(text.context.to(device, dtype), pooled)


def _sizes(request: GenerateRequest, count: int, device: torch.device) -> SizeCond:
    row = [request.height_px, request.width_px, 0, 0, request.height_px, request.width_px]
    return SizeCond(torch.tensor([row] * count, dtype=torch.float32, device=device))
