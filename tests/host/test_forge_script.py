"""The strength grid in txt2img's list of scripts, on the fake Forge."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio")

import gradio as gr
from PIL import Image

from lib_trainer.app import host_and_jobs
from lib_trainer.errors import UserError
from lib_trainer.host import detect
from tests.fakes.forge_room import fake_forge
from tests.host.grid_checks import put
from tests.host.webui_grid_room import WebUIGridRoom

SCRIPT = Path(__file__).parents[2] / "scripts" / "train_lora_grid.py"


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebUIGridRoom]:
    with fake_forge(tmp_path_factory.mktemp("forge"), "sd1.safetensors") as forge:
        host_and_jobs.cache_clear()
        room = WebUIGridRoom(forge)
        put(room, "jeff", 1)
        put(room, "oil", 2)
        yield room
    host_and_jobs.cache_clear()


@pytest.fixture
def script(room: WebUIGridRoom) -> Any:
    spec = importlib.util.spec_from_file_location("train_lora_grid_script", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.StrengthGrid()


def run(room: WebUIGridRoom, script: Any, *values: str, **job: Any) -> Any:
    """What the WebUI gets for a txt2img job with this script chosen."""
    from modules import processing, shared

    shared.opts.data["grid_save"] = True
    given = {"prompt": "p", "seed": 7, "width": 64, "height": 64, "steps": 1, "cfg_scale": 1.0, "sampler_name": "Euler"}
    p = processing.StableDiffusionProcessingTxt2Img(
        **{**given, **job}, scheduler="Automatic", scripts=object(), outpath_grids=shared.opts.outdir_txt2img_grids
    )
    return room.run(lambda: script.run(p, *values))


def test_it_stands_in_the_list_of_txt2img_alone(script: Any) -> None:
    assert script.title() == "LoRA strength grid"
    assert script.show(False) and not script.show(True)


def test_where_training_does_not_work_it_is_not_listed(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> None:
        raise UserError("Training does not work in this WebUI yet.", "")

    monkeypatch.setattr(detect, "current_host", refused)
    assert not script.show(False)


def test_its_inputs_list_the_files(script: Any) -> None:
    with gr.Blocks():
        lora, strengths, other, other_strengths = script.ui(False)
    assert [name for name, _ in lora.choices] == [name for name, _ in other.choices] == ["jeff", "oil"]
    assert (strengths.value, other_strengths.value) == ("0 · 0.5 · 0.7 · 0.85 · 1", "")


def test_the_grid_comes_first_and_then_every_picture(room: WebUIGridRoom, script: Any) -> None:
    processed = run(room, script, "jeff", "0, 0.5, 1", None, "")
    grid, *pictures = processed.images
    assert processed.index_of_first_image == 1
    assert [text.split("\n")[0] for text in processed.infotexts[1:]] == ["p", "p <lora:jeff:0.5>", "p <lora:jeff:1>"]
    assert pictures[0].tobytes() == room.webui.picture("p")
    for picture, text in zip(pictures, processed.infotexts[1:], strict=True):
        assert room.txt2img(text) == picture.tobytes()
    assert grid.width > 3 * 64
    assert "Script: Train LoRA grid" in processed.infotexts[0]


def test_the_grid_is_kept_where_the_webui_keeps_its_own(room: WebUIGridRoom, script: Any) -> None:
    from modules import shared

    folder = Path(shared.opts.outdir_txt2img_grids)
    before = set(folder.glob("*.png"))
    processed = run(room, script, "jeff", "1", None, "")
    (kept,) = set(folder.glob("*.png")) - before
    with Image.open(kept) as picture:
        assert picture.text["parameters"] == processed.infotexts[0]


def test_another_lora_goes_across_and_a_batch_goes_down(room: WebUIGridRoom, script: Any) -> None:
    assert len(run(room, script, "jeff", "0, 1", "oil", "0, 0.5, 1").images) == 1 + 6
    processed = run(room, script, "jeff", "1", None, "", n_iter=2)
    assert ["Seed: 7" in text for text in processed.infotexts[1:]] == [True, False]


def test_without_a_choice_the_prompts_own_is_varied(room: WebUIGridRoom, script: Any) -> None:
    processed = run(room, script, None, "0, 0.3", None, "", prompt="a <lora:oil:0.8> b", seed=-1)
    assert [text.split("\n")[0] for text in processed.infotexts[1:]] == ["a b", "a <lora:oil:0.3> b"]
    assert "Seed: 4242" in processed.infotexts[1]


@pytest.mark.parametrize(
    ("values", "said"), [((None, "1", None, ""), "No LoRA is chosen"), (("jef", "1", None, ""), "Did you mean jeff")]
)
def test_what_cannot_be_drawn_is_said(room: WebUIGridRoom, script: Any, values: tuple, said: str) -> None:
    with pytest.raises(UserError, match=said):
        run(room, script, *values)


def test_interrupt_keeps_what_is_there(room: WebUIGridRoom, script: Any, monkeypatch: Any) -> None:
    from modules import processing, shared

    real = processing.process_images

    def pressed(job: Any) -> Any:
        done = real(job)
        shared.state.interrupted = "0.5" in job.prompt
        return done

    monkeypatch.setattr(processing, "process_images", pressed)
    assert len(run(room, script, "jeff", "0, 0.5, 1", None, "").images) == 1 + 1
