"""Text-to-image, as far as a picture depends on the model, the LoRAs of the prompt, and the caches."""

import os
import re
from dataclasses import dataclass
from itertools import pairwise
from types import SimpleNamespace

import torch
from PIL import Image

import networks
from backend import memory_management
from backend.text_processing import classic_engine
from modules import paths_internal, shared
from modules.processing_results import NETWORK, Processed, described, fix_seed  # noqa: F401
from modules.sd_models import forge_model_reload, model_data

# Set when another checkpoint was selected.
pending = SimpleNamespace(global_unload=False)
_COMMENT = re.compile(r"#[^\n]*(\n|$)")


class SdConditioning(list):
    def __init__(self, prompts, width, height):
        super().__init__(prompts)
        self.width, self.height, self.is_negative_prompt, self.distilled_cfg_scale = width, height, False, 3.5


@dataclass(repr=False)
class StableDiffusionProcessing:
    sd_model: object = None
    prompt: str = ""
    negative_prompt: str = ""
    seed: int = -1
    sampler_name: str = None
    scheduler: str = None
    batch_size: int = 1
    n_iter: int = 1
    steps: int = 50
    cfg_scale: float = 7.0
    width: int = 512
    height: int = 512
    do_not_save_samples: bool = False
    do_not_save_grid: bool = False
    scripts: object = None
    styles: list = None
    extra_generation_params: dict = None
    outpath_grids: str = ""

    cached_uc = [None, None, None]
    cached_c = [None, None, None]

    def __post_init__(self):
        self.cached_uc = StableDiffusionProcessing.cached_uc
        self.cached_c = StableDiffusionProcessing.cached_c
        self.styles, self.extra_generation_params = self.styles or [], self.extra_generation_params or {}

    def clear_prompt_cache(self):
        StableDiffusionProcessing.cached_c = self.cached_c = [None, None, None]
        StableDiffusionProcessing.cached_uc = self.cached_uc = [None, None, None]

    def close(self):
        pass


@dataclass(repr=False)
class StableDiffusionProcessingTxt2Img(StableDiffusionProcessing):
    cached_hr_uc = [None, None, None]
    cached_hr_c = [None, None, None]


@dataclass(repr=False)
class StableDiffusionProcessingImg2Img(StableDiffusionProcessing):
    pass


def process_images(p):
    _, reloaded = forge_model_reload()
    if pending.global_unload:
        if not reloaded:
            memory_management.unload_all_models()
        p.clear_prompt_cache()
    pending.global_unload = False
    engine, state = model_data.get_sd_model(), shared.state
    if not shared.cmd_opts.no_prompt_history:
        with open(os.path.join(paths_internal.data_path, "params.txt"), "w", encoding="utf8") as file:
            file.write(p.prompt)
    if state.job_count == -1:
        state.job_count = p.n_iter
    images = []
    with torch.inference_mode():
        state.skipped = False
        if not (state.interrupted or state.stopping_generation):
            images = _draw(p, engine)
            state.nextjob()
    return described(p, images)


def _draw(p, engine):
    engine.forge_objects = engine.forge_objects_original.shallow_copy()
    prompt = _COMMENT.sub("\n", p.prompt) if shared.opts.enable_prompt_comments else p.prompt
    found = NETWORK.findall(prompt)
    names, strengths = [name for name, _ in found], [list(map(float, (given or "1").split(":"))) for _, given in found]
    try:
        networks.load_networks(names, [each[0] for each in strengths], [each[-1] for each in strengths])
    except (AttributeError, ValueError):
        # One name that is not there: as if none had been asked for.
        networks.load_networks([], [], [])
    engine.forge_objects = engine.forge_objects_after_applying_lora.shallow_copy()
    c = _conditioning(p, engine, NETWORK.sub("", prompt), p.cached_c)
    uc = _conditioning(p, engine, p.negative_prompt, p.cached_uc)
    unet = engine.forge_objects.unet
    memory_management.load_models_gpu([unet])
    generators = [torch.Generator().manual_seed(p.seed + index) for index in range(p.batch_size)]
    channels = engine.forge_objects.vae.latent_channels
    noise = [torch.randn(channels, p.height // 8, p.width // 8, generator=generator) for generator in generators]
    if getattr(engine, "is_wan", False):
        # Neo's videos of one frame.
        noise = [each[:, None] for each in noise]
    most = float(min(unet.model.predictor.sigmas[-1], 14.0))
    sigmas = torch.cat([torch.linspace(most, 0.1 * most / 14, p.steps), torch.zeros(1)])
    x = torch.stack(noise) * sigmas[0]
    for number, (sigma, after) in enumerate(pairwise(sigmas)):
        shared.state.sampling_step, shared.state.sampling_steps = number, p.steps
        if shared.state.interrupted or shared.state.skipped:
            # What there is by now is handed over as it is.
            break
        here = sigma.expand(len(x))
        denoised = unet.model.apply_model(x, here, transformer_options={}, **_expand(c, len(x)))
        if p.cfg_scale != 1:
            bad = unet.model.apply_model(x, here, transformer_options={}, **_expand(uc, len(x)))
            denoised = bad + p.cfg_scale * (denoised - bad)
        x = x + (x - denoised) / sigma * (after - sigma)
    pictures = engine.decode_first_stage(x).clamp(-1, 1).movedim(1, -1)
    return [Image.fromarray(((picture + 1) * 127.5).to(torch.uint8).numpy()) for picture in pictures]


def _expand(cond, size):
    cond = cond[0].reshape(1, *cond[0].shape[-2:]) if isinstance(cond, list) else cond
    cond = cond if isinstance(cond, dict) else {"crossattn": cond}
    names = {"crossattn": "c_crossattn", "vector": "y", "guidance": "guidance"}
    return {names[key]: value.expand(size, *value.shape[1:]) for key, value in cond.items()}


def _conditioning(p, engine, prompt, cache):
    # Like the real one, it knows a LoRA by its name and strength, not by what its file holds.
    key = (p.prompt, prompt, p.width, p.height, shared.opts.CLIP_stop_at_last_layers, engine.sd_checkpoint_info.name)
    if cache[0] == key:
        return cache[1]
    engine.set_clip_skip(int(shared.opts.CLIP_stop_at_last_layers))
    cache[1] = engine.get_learned_conditioning(SdConditioning([prompt], p.width, p.height))
    engine.extra_generation_params.update(classic_engine.take_notes())
    cache[0] = key
    return cache[1]
