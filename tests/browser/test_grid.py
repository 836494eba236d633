"""Step 4 in a real browser, on the page of its own with the embedded model: grids fill in, are stopped, found again.

Screenshots are kept in the folder that TRAIN_LORA_SCREENSHOTS names.
"""

from __future__ import annotations

import json
import os
import socket
import threading
from inspect import signature
from itertools import count
from pathlib import Path

import pytest

from lib_trainer.app import default_run

pytest.importorskip("gradio")
pytest.importorskip("playwright")

import gradio as gr
import torch
from PIL import Image

from lib_trainer.adapter.io import adapter_tensors, copy_adapter, save_adapter
from lib_trainer.host.access import Access
from lib_trainer.host.base import GenerateRequest
from lib_trainer.host.standalone.host import StandaloneHost
from lib_trainer.jobs.queue import Jobs
from lib_trainer.preview.grid_job import GridJob
from lib_trainer.ui.standalone_page import open_page
from tests.browser.conftest import CHROMIUM
from tests.host.helpers import LOHA, learned_adapter

SLOW_MS = 120_000
PROMPT, CELLS = "#train_lora_prompt textarea", "#train_lora_grid_view [data-cell]"

pytestmark = [
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no browser at {CHROMIUM}; name one in CHROMIUM"),
    pytest.mark.skipif("head" not in signature(gr.Blocks).parameters, reason="a page of its own needs gradio 4"),
]


class Site:
    """The page of its own; a run of two saved steps, and a style, lie in its LoRA folder."""

    def __init__(self, folder: Path) -> None:
        self.host = StandaloneHost(folder)
        self.host.device = torch.device("cpu")
        with self.host.open_model() as model:
            for name, seed in (("jeff", 1), ("oil", 2)):
                adapter = learned_adapter(model.adaptable_layers(), LOHA, seed, share=0.2)
                facts = {"ss_base_model_version": "sd_v1", "modelspec.trigger_phrase": f"{name}_word"}
                self.host.lora_dir.mkdir(parents=True, exist_ok=True)
                save_adapter(self.file(name), adapter_tensors(adapter, "fp32"), facts)
        copy_adapter(self.file("oil"), self.file("jeff-000001"), "jeff-000001")
        self.grid_job = GridJob(self.host)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._page = open_page(self.host, Jobs(self.host, default_run), Access(), "127.0.0.1", self.port, self.grid_job)

    def file(self, name: str) -> Path:
        return self.host.lora_dir / f"{name}.safetensors"

    def close(self) -> None:
        self.grid_job.stop()
        self.grid_job.wait(60)
        self._page.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    site = Site(tmp_path_factory.mktemp("site"))
    yield site
    site.close()


@pytest.fixture
def page(site, browser):
    page = open_tab(site, browser)
    yield page
    page.close()


def open_tab(site: Site, browser, width: int = 1280, theme: str = "light"):
    page = browser.new_page(viewport={"width": width, "height": 1000})
    page.set_default_timeout(SLOW_MS)
    page.goto(f"http://127.0.0.1:{site.port}/?__theme={theme}")
    page.wait_for_function("document.querySelector('#train_lora_grid_sampler input')?.value === 'Euler'")
    return page


def keep(page, name: str) -> None:
    if folder := os.environ.get("TRAIN_LORA_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"gradio{gr.__version__}-grid-{name}.png", full_page=True)


def choose(page, where: str, name: str) -> None:
    """An entry of a drop-down list."""
    page.click(f"{where} input")
    page.locator(f"{where} [role=option]").filter(has_text=name).first.click()


def compare(page, mode: str) -> None:
    page.locator("#train_lora_grid_mode label").filter(has_text=mode).click()


def begin(page, steps: int) -> None:
    if not page.locator("#train_lora_grid_negative textarea").is_visible():
        page.click("#train_lora_grid_more .label-wrap")
    page.locator("#train_lora_grid_more").get_by_label("Steps", exact=True).fill(str(steps))
    page.click("#train_lora_generate_grid")


def holding(monkeypatch: pytest.MonkeyPatch, site: Site, after: int) -> threading.Event:
    """Drawing waits after so many pictures until the event is set: a slow page still sees it half done."""
    seen, drawn, generate = threading.Event(), count(1), site.host.generate

    def hold(request: GenerateRequest) -> list[Image.Image]:
        if next(drawn) > after:
            assert seen.wait(SLOW_MS / 1000)
        return generate(request)

    monkeypatch.setattr(site.host, "generate", hold)
    return seen


def whole(page, count: int) -> None:
    page.wait_for_function(
        "count => document.querySelectorAll('#train_lora_grid_view [data-live=\"0\"] [data-cell]').length === count",
        arg=count,
    )


def test_a_strength_grid_fills_in_is_found_again_and_chosen_from(site, browser, page, monkeypatch):
    seen = holding(monkeypatch, site, after=3)
    choose(page, "#train_lora_grid_lora", "jeff · SD 1.x")
    page.wait_for_function("document.querySelector('#train_lora_prompt textarea').value.includes('jeff_word')")
    page.fill(PROMPT, "jeff_word as a superhero\na red circle on a blue background")
    begin(page, steps=6)
    page.wait_for_function(f"document.querySelectorAll('{CELLS}').length === 3")
    keep(page, "half-light-1280")
    other = open_tab(site, browser, width=1920, theme="dark")
    other.wait_for_selector(CELLS)
    seen.set()
    whole(other, 10)
    whole(page, 10)
    assert page.locator("#train_lora_grid_view td small").count() == 8
    heads = page.locator("#train_lora_grid_view thead th").all_inner_texts()
    assert heads == ["jeff →", "0", "0.5", "0.7", "0.85", "1"]
    keep(other, "done-dark-1920")
    other.close()

    page.click('[data-cell$=" 0 3"]')
    page.wait_for_selector("#train_lora_cell_picture img")
    # It opens in sight, however long the page is.
    page.wait_for_function(
        "(box => box.top >= 0 && box.bottom <= innerHeight)(document.querySelector('#train_lora_cell_picture')"
        ".getBoundingClientRect())"
    )
    assert page.input_value("#train_lora_cell_infotext textarea").startswith(
        "jeff_word as a superhero <lora:jeff:0.85>\nSteps: 6, Sampler: Euler"
    )
    keep(page, "chosen-light-1280")
    page.click("#train_lora_cell_send")
    page.wait_for_function(
        "document.querySelector('#train_lora_prompt textarea').value === 'jeff_word as a superhero <lora:jeff:0.85>'"
    )
    page.click("#train_lora_cell_choose")
    page.wait_for_selector("#train_lora_cell_done p")
    assert json.loads(site.file("jeff").with_suffix(".json").read_text())["preferred weight"] == 0.85
    with Image.open(site.file("jeff").with_suffix(".png")) as picture:
        assert "<lora:jeff:0.85>" in picture.text["parameters"]
    with Image.open(site.grid_job.grid_status().path) as grid:
        assert "Script: Train LoRA grid" in grid.text["parameters"]


def test_two_loras_are_stopped_half_way_and_keep_what_is_there(site, page, monkeypatch):
    seen = holding(monkeypatch, site, after=2)
    choose(page, "#train_lora_grid_lora", "jeff · SD 1.x")
    compare(page, "Two LoRAs")
    choose(page, "#train_lora_grid_other", "oil")
    page.wait_for_function("document.querySelector('#train_lora_prompt textarea').value.includes('<lora:oil:')")
    assert page.input_value(PROMPT).startswith("portrait of jeff_word <lora:jeff:")
    page.fill("#train_lora_grid_strengths textarea, #train_lora_grid_strengths input", "0 0.5 1")
    begin(page, steps=12)
    page.wait_for_selector(CELLS)
    page.click("#train_lora_grid_stop")
    page.wait_for_function("document.querySelector('#train_lora_grid_stop').disabled")
    seen.set()
    page.wait_for_selector("#train_lora_grid_view :text('Stopped')")
    grid_status = site.grid_job.wait(60)
    assert 0 < len(grid_status.drawn) < 9
    assert page.locator(CELLS).count() == len(grid_status.drawn)
    assert grid_status.path.exists()
    keep(page, "stopped-light-1280")
    page.reload()
    page.wait_for_selector("#train_lora_grid_view :text('Stopped')")
    assert page.locator(CELLS).count() == len(grid_status.drawn)


def test_a_saved_step_becomes_the_final_file(site, page):
    choose(page, "#train_lora_grid_lora", "jeff · SD 1.x")
    page.wait_for_function(f"document.querySelector('{PROMPT}').value.startsWith('jeff_word as a superhero')")
    compare(page, "Saved steps")
    page.fill("#train_lora_grid_strengths textarea, #train_lora_grid_strengths input", "0, 1")
    page.fill(PROMPT, "jeff_word")
    begin(page, steps=2)
    whole(page, 4)
    before = site.file("jeff").read_bytes()
    page.click('[data-cell$=" 0 1"]')
    said = "document.querySelector('#train_lora_cell_infotext textarea').value"
    page.wait_for_function(f"{said}.startsWith('jeff_word <lora:jeff-000001:1>')")
    page.click("#train_lora_cell_choose")
    page.wait_for_selector("#train_lora_cell_done :text-matches('another program|is now jeff')")
    assert site.file("jeff").read_bytes() == before, "a file that was not trained here is not replaced"
    keep(page, "saved-steps-light-1280")


def test_a_misspelt_name_is_said_before_anything_is_drawn(site, page):
    drawn = site.grid_job.grid_status().version
    page.fill(PROMPT, "a house <lora:jef:1>")
    page.click("#train_lora_generate_grid")
    page.wait_for_selector("#train_lora_grid_message .train-lora-error")
    assert "Did you mean jeff" in page.inner_text("#train_lora_grid_message")
    assert site.grid_job.grid_status().version == drawn
