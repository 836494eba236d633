"""What comes out of a job, and the text that goes with it: the same in both WebUIs."""

import re
from types import SimpleNamespace

from modules import shared

NETWORK = re.compile(r"<lora:([^:>]+):?([^>]*)>")


class Processed:
    def __init__(self, p, images_list, seed=-1, info="", infotexts=None, index_of_first_image=0):
        self.images, self.seed, self.info, self.infotexts = images_list, seed, info, infotexts or []
        self.index_of_first_image = index_of_first_image


def fix_seed(p):
    p.seed = 4242 if p.seed in (None, -1) else p.seed


def described(p, images):
    """The pictures, each with its infotext; one infotext even where there is no picture."""
    infotexts = [_infotext(p, place) for place in range(max(1, len(images)))]
    for image, text in zip(images, infotexts, strict=False):
        if shared.opts.enable_pnginfo:
            image.info["parameters"] = text
    return SimpleNamespace(images=images, infotexts=infotexts)


def _infotext(p, place):
    # Without a runner of scripts the parsed prompt stays, which has no tags.
    prompt = p.prompt if p.scripts is not None else NETWORK.sub("", p.prompt)
    lines = [prompt, *([f"Negative prompt: {p.negative_prompt}"] if p.negative_prompt else [])]
    facts = {
        "Steps": p.steps, "Sampler": p.sampler_name, "Schedule type": p.scheduler, "CFG scale": p.cfg_scale,
        "Seed": p.seed + place, "Size": f"{p.width}x{p.height}", "Model": shared.sd_model.sd_checkpoint_info.name,
        **p.extra_generation_params,
    }  # fmt: skip
    return "\n".join([*lines, ", ".join(f"{key}: {value}" for key, value in facts.items())])
