"""The contract of grids on the standalone host."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from lib_trainer.adapter.attach import Adapter
from lib_trainer.host.base import GenerateRequest
from lib_trainer.host.standalone.host import StandaloneHost
from lib_trainer.models.families import SD1
from tests.host.contract_grids import Grids
from tests.host.grid_checks import parse_infotext
from tests.host.tiny_pipelines import tiny_pipeline


@dataclass(frozen=True)
class StandaloneGridRoom:
    host: StandaloneHost
    adapters: dict[int, Adapter] = field(default_factory=dict)

    grid_suffix = ".png"

    def run(self, fn: Any) -> Any:
        return self.host.run_exclusive(fn)

    def request(self, prompt: str = "", **changes: Any) -> GenerateRequest:
        small = {"width_px": 64, "height_px": 64, "steps": 1, "cfg_scale": 1.0, "seed": 7}
        return GenerateRequest(prompt, **{**small, **changes})

    def txt2img(self, infotext: str) -> bytes:
        facts = parse_infotext(infotext)
        width, height = map(int, facts["Size"].split("x"))
        request = GenerateRequest(
            facts["Prompt"], facts["Negative prompt"], width, height, int(facts["Steps"]), float(facts["CFG scale"]),
            facts["Sampler"], seed=int(facts["Seed"]),
        )  # fmt: skip
        return self.host.generate(request)[0].tobytes()


@pytest.fixture(scope="module", params=[SD1], ids=lambda family: family.key)
def room(request, tmp_path_factory) -> StandaloneGridRoom:
    folder = tmp_path_factory.mktemp("standalone")
    tiny_pipeline(request.param, folder).save_pretrained(folder / "tiny")
    host = StandaloneHost(folder / "out", folder / "tiny")
    host.device = torch.device("cpu")
    host.lora_dir.mkdir(parents=True)
    return StandaloneGridRoom(host)


class TestGrids(Grids):
    pass
