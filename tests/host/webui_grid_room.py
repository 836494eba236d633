"""A WebUI for the contract of grids: text-to-image by its own means, past everything of ours."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from lib_trainer.adapter.attach import Adapter
from lib_trainer.host.base import GenerateRequest, Host
from tests.fakes.room import WebuiRoom
from tests.host.grid_checks import parse_infotext


@dataclass(frozen=True)
class WebUIGridRoom:
    webui: WebuiRoom
    adapters: dict[int, Adapter] = field(default_factory=dict)

    @property
    def host(self) -> Host:
        return self.webui.host

    @property
    def model(self) -> Any:
        return self.webui.model

    @property
    def grid_suffix(self) -> str:
        from modules import shared

        # Neo's default is jpg.
        return f".{shared.opts.grid_format}"

    def run(self, fn: Any) -> Any:
        return self.webui.run(fn)

    def request(self, prompt: str = "", **changes: Any) -> GenerateRequest:
        return self.webui.request(prompt, **changes)

    def select(self) -> None:
        self.webui.select()

    def select_eight_bits(self) -> None:
        self.webui.select_eight_bits()

    def txt2img(self, infotext: str) -> bytes:
        return self.run(lambda: draw(infotext))


def draw(infotext: str) -> bytes:
    from modules import processing, scripts, shared

    facts = parse_infotext(infotext)
    width, height = map(int, facts["Size"].split("x"))
    job = processing.StableDiffusionProcessingTxt2Img(
        sd_model=shared.sd_model,
        prompt=facts["Prompt"],
        negative_prompt=facts["Negative prompt"],
        seed=int(facts["Seed"]),
        width=width,
        height=height,
        steps=int(facts["Steps"]),
        cfg_scale=float(facts["CFG scale"]),
        sampler_name=facts["Sampler"],
        scheduler=facts["Schedule type"],
        do_not_save_samples=True,
        do_not_save_grid=True,
    )
    # reForge looks through its scripts for one of its own.
    job.scripts = scripts.ScriptRunner()
    with closing(job):
        return processing.process_images(job).images[0].tobytes()
