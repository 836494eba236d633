"""The WebUI's interrogators in its own process: the sentence for missing weights, and captions by a stand-in for them.

Weights are 900 and 600 MB, so a small module stands for the loaded network; everything around it is the WebUI's.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from lib_trainer.captioning.captioner import Captioner, CaptionPlan, caption_pictures
from lib_trainer.errors import UserError
from lib_trainer.host.webui.interrogate import BLIP, DEEPBOORU
from tests.fakes.room import WebuiRoom

FILES = {BLIP: "BLIP/model_base_caption_capfilt_large.pth", DEEPBOORU: "torch_deepdanbooru/model-resnet_custom_v3.pt"}
THRESHOLD = "interrogate_deepbooru_score_threshold"


class Network(torch.nn.Module):
    """What both interrogators ask of their networks."""

    tags = ("1girl", "blue_eyes", "hat", "rating:safe")

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[tuple[int, ...]] = []

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        self.seen.append(tuple(pixels.shape))
        return torch.tensor([[0.9, 0.6, 0.2, 0.99]])

    def generate(self, pixels: torch.Tensor, **_how: Any) -> list[str]:
        self.seen.append(tuple(pixels.shape))
        return ["a man with a hat"]


@pytest.fixture
def weights(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Path]]:
    """Where weights go; nothing may be fetched."""
    from modules import modelloader, paths

    monkeypatch.setattr(modelloader, "load_models", lambda *_args, **_how: pytest.fail("it would fetch"))
    places = {name: Path(paths.models_path, file) for name, file in FILES.items()}
    yield places
    for place in places.values():
        place.unlink(missing_ok=True)


def captioner(room: WebuiRoom, name: str) -> Captioner:
    return next(one for one in room.host.captioners() if one.label == name)


def put_network(name: str, network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    """The network in the place of the one that the WebUI would load."""
    from modules import deepbooru, shared

    if name == BLIP:
        monkeypatch.setattr(shared.interrogator, "blip_model", network)
        return
    monkeypatch.setattr(deepbooru.model, "model", network)
    if hasattr(deepbooru.model, "patcher"):
        from backend.patcher.base import ModelPatcher

        cpu = torch.device("cpu")
        monkeypatch.setattr(deepbooru.model, "patcher", ModelPatcher(network, load_device=cpu, offload_device=cpu))


class Interrogators:
    @pytest.mark.parametrize("name", [BLIP, DEEPBOORU])
    def test_missing_weights_are_one_sentence(self, room: WebuiRoom, weights: dict[str, Path], name: str) -> None:
        with pytest.raises(UserError) as error:
            room.run(lambda: captioner(room, name).caption(Image.new("RGB", (64, 64)), 0.5))
        place = weights[name]
        assert error.value.message == f"{name} needs the file {place.name}, which is missing."
        assert error.value.hint == f"Put it into {place.parent}."

    @pytest.mark.parametrize(
        ("name", "said"), [(BLIP, "jeff, a man with a hat"), (DEEPBOORU, "jeff, 1girl, blue eyes")]
    )
    def test_a_folder_is_captioned_by_the_webuis_own_code(
        self, room: WebuiRoom, weights: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        name: str, said: str,
    ) -> None:  # fmt: skip
        from modules import shared

        network, picture = Network(), tmp_path / "a.png"
        weights[name].parent.mkdir(parents=True, exist_ok=True)
        weights[name].write_bytes(b"stands for the weights")
        put_network(name, network, monkeypatch)
        before = shared.opts.data.get(THRESHOLD)
        Image.new("RGB", (96, 64), "red").save(picture)
        plan = CaptionPlan(prefix="jeff", threshold=0.5)
        made = list(caption_pictures([picture], (".txt",), captioner(room, name), plan, room.host.run_exclusive))
        assert [(item.text, item.problem) for item in made] == [(said, "")]
        assert picture.with_suffix(".txt").read_text() == said and len(network.seen) == 1
        assert shared.opts.data.get(THRESHOLD) == before
