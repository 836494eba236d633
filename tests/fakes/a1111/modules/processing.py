"""Text-to-image, as far as a picture depends on the model, the LoRAs of the prompt, and the caches."""

from itertools import pairwise
from pathlib import Path

import torch
from PIL import Image

from k_diffusion import external
from modules import devices, extra_networks, lowvram, paths_internal, prompt_parser, sd_models, shared
from modules.processing_results import Processed, described, fix_seed  # noqa: F401
from modules.sd_hijack import model_hijack

_DEFAULTS = {
    "prompt": "", "negative_prompt": "", "seed": -1, "steps": 50, "cfg_scale": 7.0, "width": 512, "height": 512,
    "batch_size": 1, "n_iter": 1, "sampler_name": None, "scheduler": None, "scripts": None, "outpath_grids": "",
    "do_not_save_samples": False, "do_not_save_grid": False,
}  # fmt: skip


class StableDiffusionProcessing:
    cached_c = [None, None]
    cached_uc = [None, None]

    def __init__(self, sd_model=None, **wanted):
        """Whatever model one hands over, the picture is drawn with the one that the WebUI has."""
        unknown = wanted.keys() - _DEFAULTS.keys()
        if unknown:
            raise TypeError(f"unexpected keyword arguments {sorted(unknown)}")
        vars(self).update(_DEFAULTS | wanted)
        self.styles, self.extra_generation_params, self.comments = [], {}, {}

    @property
    def sd_model(self):
        return shared.sd_model

    def comment(self, text):
        self.comments[text] = 1

    def close(self):
        """The caches stay, for the next picture of the same prompt."""


class StableDiffusionProcessingTxt2Img(StableDiffusionProcessing):
    pass


class StableDiffusionProcessingImg2Img(StableDiffusionProcessing):
    pass


def process_images(p):
    model = sd_models.reload_model_weights()
    model_hijack.embedding_db.load_textual_inversion_embeddings()
    model_hijack.clear_comments()
    state, images = shared.state, []
    state.skipped = False
    state.job_count = p.n_iter if state.job_count < 0 else state.job_count
    if not (state.interrupted or state.stopping_generation):
        with torch.no_grad():
            images = _draw(p, model)
        state.nextjob()
    return described(p, images)


def _draw(p, model):
    prompt, tags = extra_networks.taken_out(p.prompt)
    extra_networks.activate(p, tags)
    bad = _conditioning(p, p.negative_prompt, tags, StableDiffusionProcessing.cached_uc, is_negative=True)
    good = _conditioning(p, prompt, tags, StableDiffusionProcessing.cached_c)
    p.extra_generation_params.update(model_hijack.extra_generation_params)
    if not shared.cmd_opts.no_prompt_history:
        Path(paths_internal.data_path, "params.txt").write_text(p.prompt, encoding="utf-8")
    p.comments.update(dict.fromkeys(model_hijack.comments, 1))
    sd_models.apply_alpha_schedule_override(model, p)
    with devices.autocast():
        latents = _sample(p, model, good, bad)
    found = model.decode_first_stage(latents.to(devices.dtype_vae)).float().clamp(-1, 1).movedim(1, -1)
    lowvram.send_everything_to_cpu()
    extra_networks.deactivate(p)
    return [Image.fromarray(picture.cpu().numpy()) for picture in ((found + 1) * 127.5).to(torch.uint8)]


def _sample(p, model, good, bad):
    denoiser = (external.CompVisVDenoiser if model.parameterization == "v" else external.CompVisDenoiser)(model)
    sigmas = [*torch.linspace(14.0, 0.1, p.steps), torch.tensor(0.0)]
    seeds = [torch.Generator().manual_seed(p.seed + place) for place in range(p.batch_size)]
    x = sigmas[0] * torch.stack([torch.randn(4, p.height // 8, p.width // 8, generator=seed) for seed in seeds])
    for step, (sigma, after) in enumerate(pairwise(sigmas)):
        shared.state.sampling_step, shared.state.sampling_steps = step, p.steps
        if shared.state.interrupted or shared.state.skipped:
            # What there is by now is handed over as it is.
            break
        here = sigma.expand(len(x))
        denoised = denoiser(x, here, cond=_for_each(good, len(x)))
        if p.cfg_scale != 1:
            away = denoiser(x, here, cond=_for_each(bad, len(x)))
            denoised = away + p.cfg_scale * (denoised - away)
        x = denoised + (x - denoised) * (after / sigma)
    return x


def _for_each(cond, count):
    """One prompt's conditioning, for each picture of a batch. SD 1's and 2's has another form than SDXL's."""
    if isinstance(cond, dict):
        return {key: value.expand(count, *value.shape[1:]) for key, value in cond.items()}
    return {"c_crossattn": [cond.expand(count, *cond.shape[1:])]}


def _conditioning(p, prompt, tags, cache, is_negative=False):
    # Like the real one, it knows a LoRA by its name and strength, not by what its file holds.
    opts, checkpoint = shared.opts, p.sd_model.sd_checkpoint_info
    key = (prompt, tags, checkpoint, p.width, p.height, opts.CLIP_stop_at_last_layers, opts.emphasis, opts.fp8_storage)
    if cache[0] != key:
        with devices.autocast():
            asked = prompt_parser.SdConditioning([prompt], is_negative, p.width, p.height)
            cache[:] = key, p.sd_model.get_learned_conditioning(asked)
    return cache[1]
