"""Text-to-image, as far as a picture depends on the model, the LoRAs of the prompt, and the caches."""

import re
from itertools import pairwise
from pathlib import Path

import networks
import torch
from ldm_patched.modules import model_management
from PIL import Image

from modules import paths_internal, prompt_parser, sd_models, shared
from modules.processing_results import NETWORK, Processed, described, fix_seed  # noqa: F401
from modules.sd_hijack import model_hijack

# Whatever the options say: they decide only whether files keep the comments.
_COMMENT = re.compile(r"#[^\n]*(\n|$)")
_DEFAULTS = {
    "prompt": "", "negative_prompt": "", "seed": -1, "steps": 50, "cfg_scale": 7.0, "width": 512, "height": 512,
    "batch_size": 1, "n_iter": 1, "sampler_name": None, "scheduler": None, "scripts": None, "outpath_grids": "",
    "do_not_save_samples": False, "do_not_save_grid": False,
}  # fmt: skip


class StableDiffusionProcessing:
    cached_c = [None, None]
    cached_uc = [None, None]

    def __init__(self, sd_model=None, **wanted):
        unknown = wanted.keys() - _DEFAULTS.keys()
        if unknown:
            raise TypeError(f"unexpected keyword arguments {sorted(unknown)}")
        vars(self).update(_DEFAULTS | wanted)
        self.styles, self.extra_generation_params = [], {}

    def close(self):
        """The caches stay, for the next picture of the same prompt."""


class StableDiffusionProcessingTxt2Img(StableDiffusionProcessing):
    pass


class StableDiffusionProcessingImg2Img(StableDiffusionProcessing):
    pass


def process_images(p):
    if p.scripts is None:
        raise AttributeError("reForge asks the runner of scripts without looking whether there is one")
    model = sd_models.reload_model_weights()
    model_hijack.clear_comments()
    state, images = shared.state, []
    state.skipped = False
    state.job_count = p.n_iter if state.job_count < 0 else state.job_count
    if not shared.cmd_opts.no_prompt_history:
        Path(paths_internal.data_path, "params.txt").write_text(p.prompt, encoding="utf-8")
    if not (state.interrupted or state.stopping_generation):
        with torch.inference_mode():
            images = _draw(p, model)
        state.nextjob()
    return described(p, images)


def _draw(p, model):
    model.forge_objects = model.forge_objects_original.shallow_copy()
    prompt = _COMMENT.sub("\n", p.prompt)
    found = NETWORK.findall(prompt)
    names, strengths = [name for name, _ in found], [list(map(float, (given or "1").split(":"))) for _, given in found]
    try:
        networks.load_networks(names, [each[0] for each in strengths], [each[-1] for each in strengths])
    except AttributeError:
        # One name that is not there: as if none had been asked for.
        networks.load_networks([], [], [])
    model.forge_objects = model.forge_objects_after_applying_lora.shallow_copy()
    good = _conditioning(p, model, NETWORK.sub("", prompt), StableDiffusionProcessing.cached_c)
    bad = _conditioning(p, model, p.negative_prompt, StableDiffusionProcessing.cached_uc)
    p.extra_generation_params.update(model_hijack.extra_generation_params)
    unet = model.forge_objects.unet
    model_management.load_models_gpu([unet])
    x = _sample(p, unet.model, good, bad)
    pictures = model.decode_first_stage(x).clamp(-1, 1).movedim(1, -1)
    return [Image.fromarray(((picture + 1) * 127.5).to(torch.uint8).numpy()) for picture in pictures]


def _sample(p, unet, good, bad):
    sigmas = [*torch.linspace(14.0, 0.1, p.steps), torch.tensor(0.0)]
    seeds = [torch.Generator().manual_seed(p.seed + place) for place in range(p.batch_size)]
    x = sigmas[0] * torch.stack([torch.randn(4, p.height // 8, p.width // 8, generator=seed) for seed in seeds])
    for step, (sigma, after) in enumerate(pairwise(sigmas)):
        shared.state.sampling_step, shared.state.sampling_steps = step, p.steps
        if shared.state.interrupted or shared.state.skipped:
            break
        here = sigma.expand(len(x))
        denoised = unet.apply_model(x, here, **_expand(good, len(x)))
        if p.cfg_scale != 1:
            away = unet.apply_model(x, here, **_expand(bad, len(x)))
            denoised = away + p.cfg_scale * (denoised - away)
        x = denoised + (x - denoised) * (after / sigma)
    return x


def _expand(cond, size):
    cond = cond if isinstance(cond, dict) else {"crossattn": cond}
    names = {"crossattn": "c_crossattn", "vector": "y"}
    return {names[key]: value.expand(size, *value.shape[1:]) for key, value in cond.items()}


def _conditioning(p, model, prompt, cache):
    # Like the real one, it knows a LoRA by its name and strength, not by what its file holds.
    opts, checkpoint = shared.opts, model.sd_checkpoint_info
    key = (p.prompt, prompt, checkpoint, p.width, p.height, opts.CLIP_stop_at_last_layers, opts.emphasis)
    if cache[0] != key:
        asked = prompt_parser.SdConditioning([prompt], width=p.width, height=p.height)
        cache[:] = key, model.get_learned_conditioning(asked)
    return cache[1]
