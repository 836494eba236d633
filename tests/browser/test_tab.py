"""The tab in a real browser: a run is started, watched, found again after a reload, and stopped.

Screenshots are kept in the folder that TRAIN_LORA_SCREENSHOTS names.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from lib_trainer.preview.grid_job import GridJob
from lib_trainer.ui.status_view import show_panel

pytest.importorskip("gradio")
pytest.importorskip("playwright")

import gradio as gr

from lib_trainer.host.access import Access
from lib_trainer.jobs.queue import Jobs
from lib_trainer.ui.tab import build
from lib_trainer.web.router import make_router
from lib_trainer.workbench.folders import Workbench
from tests.browser.conftest import CHROMIUM
from tests.ui.fakes import FakeHost, SlowRun, draw_pictures
from tests.waiting import PATIENCE_S

ROOT = Path(__file__).parents[2]
FOLDER = "#train_lora_train_data_dir textarea, #train_lora_train_data_dir input"
NAME = "#train_lora_output_name textarea, #train_lora_output_name input"
SLOW_MS = 120_000
WORKBENCH = (
    *(f"train_lora_workbench{part}.js" for part in ("", "_cards", "_events", "_machine")), "train_lora_browse.js",
)  # fmt: skip

pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no browser at {CHROMIUM}; name one in CHROMIUM")


class Site:
    """The tab inside a page like a WebUI's, served to browsers that load our script as a WebUI would."""

    def __init__(self, folder: Path, browser, access: Access | None = None) -> None:
        self.host = FakeHost(folder)
        self.run = SlowRun(steps=3000, seconds=0.1)
        self.jobs = Jobs(self.host, self.run)
        self.pictures = draw_pictures(folder / "pictures")
        self._browser, self._pages = browser, []
        self.access = access or Access()
        workbench = Workbench(self.host)
        tab = build(self.host, self.jobs, self.access, workbench=workbench)
        style = (ROOT / "style.css").read_text(encoding="utf-8")
        with gr.Blocks(css=style, analytics_enabled=False) as outer, gr.Tabs(elem_id="tabs"):
            with gr.TabItem("Train LoRA", elem_id="tab_train_lora"):
                tab.render()
            with gr.TabItem("Other"):
                gr.Markdown("Another tab")
        self._outer = outer.queue()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        outer.launch(server_name="127.0.0.1", server_port=self.port, prevent_thread_lock=True, quiet=True)
        outer.server_app.include_router(
            make_router(self.host, self.jobs, self.access, GridJob(self.host), show_panel, workbench)
        )

    def open(self, width: int = 1280, theme: str = "light", unreachable: str = ""):
        """A new page; no request with `unreachable` in its address is answered."""
        page = self._browser.new_page(viewport={"width": width, "height": 1000})
        self._pages.append(page)
        page.set_default_timeout(SLOW_MS)
        if unreachable:
            page.route(f"**{unreachable}**", lambda route: route.abort())
        for script in ("train_lora.js", "train_lora_page.js", "train_lora_settings.js", *WORKBENCH):
            page.add_init_script(path=ROOT / "javascript" / script)
        page.goto(f"http://127.0.0.1:{self.port}/?__theme={theme}")
        page.wait_for_selector(".train-lora-head")
        return page

    def close(self) -> None:
        self.jobs.stop(save=False)
        self.jobs.wait(PATIENCE_S)
        # The server waits for their connections, and left open they ask on for ever.
        for page in self._pages:
            page.close()
        self._outer.close()


@pytest.fixture
def site(tmp_path, browser):
    site = Site(tmp_path, browser)
    yield site
    site.close()


def keep(page, name: str) -> None:
    if folder := os.environ.get("TRAIN_LORA_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"gradio{gr.__version__}-{name}.png", full_page=True)


def wait_for_picture(page) -> None:
    """A test picture of the run is on the page, and could be fetched."""
    page.wait_for_function("document.querySelector('#train_lora_status .samples img')?.naturalWidth > 0")


def shown_step(page) -> int:
    return int(page.locator("#train_lora_status [role=progressbar]").get_attribute("aria-valuenow"))


def wait_for_step(page, number: int) -> None:
    page.wait_for_function(
        "number => +/step (\\d+) of/.exec(document.querySelector('#train_lora_status')?.textContent)?.[1] >= number",
        arg=number,
    )


def test_a_run_is_watched_found_again_and_saved(site):
    page = site.open()
    page.fill(FOLDER, str(site.pictures))
    page.click("#train_lora_scan")
    page.wait_for_selector("#train_lora_gallery img")
    assert page.locator("#train_lora_gallery img").count() == 8
    assert "⚠" in page.inner_text("#train_lora_gallery")
    page.wait_for_timeout(1000)
    assert page.locator(".train-lora-wrong").count() == 0, "a small picture is no mistake of an input"
    keep(page, "pictures-light-1280")

    page.click("#train_lora_train")
    wait_for_step(page, 3)
    first = shown_step(page)
    wait_for_step(page, first + 5)
    assert page.locator(".train-lora-curve polyline").count() == 3
    page.hover(".train-lora-curve svg")
    page.wait_for_function("document.querySelector('.train-lora-curve output').textContent.startsWith('step ')")
    under_the_pointer = page.inner_text(".train-lora-curve output")
    assert "loss 0." in under_the_pointer and "rate " in under_the_pointer
    wait_for_step(page, first + 8)
    assert page.locator(".train-lora-curve .cursor").count() == 1, "the next answer brings the line along"
    page.click("#train_lora_sample")
    wait_for_picture(page)
    keep(page, "training-light-1280")

    page.reload()
    wait_for_step(page, first + 10)
    page.wait_for_selector("#train_lora_train:has-text('Train next')")
    page.wait_for_function(f"document.querySelector({FOLDER!r}).value === {str(site.pictures)!r}")
    page.wait_for_selector("#train_lora_gallery img")
    other = site.open(width=1920, theme="dark")
    wait_for_step(other, first + 12)
    wait_for_picture(other)
    keep(other, "second-browser-dark-1920")

    page.click("#train_lora_pause")
    other.wait_for_selector("#train_lora_pause:has-text('Resume')")
    held = site.jobs.status().step
    page.wait_for_timeout(1000)
    assert site.jobs.status().step <= held + 1
    keep(page, "paused-light-1280")

    page.click("#train_lora_stop_save")
    page.wait_for_selector(".train-lora-copy")
    assert "<lora:jeff_person:0.8>" in page.inner_text("#train_lora_status")
    assert (site.host.lora_dir / "jeff_person.safetensors").exists()
    other.wait_for_selector(".train-lora-copy")

    page.click("#train_lora_generate_picture")
    page.wait_for_selector("#train_lora_picture img")
    assert site.host.requests[0].prompt == "jeff_person as a superhero <lora:jeff_person:0.8>"
    keep(page, "done-light-1280")


@pytest.mark.parametrize("reachable", [True, False])
def test_a_run_is_watched_with_a_password_and_without_the_route(tmp_path, browser, reachable):
    """The page's own key opens the route; where that cannot be reached gradio is asked."""
    site = Site(tmp_path, browser, Access(api_users={"bob": "pass"}))
    try:
        answers = []
        page = site.open(unreachable="" if reachable else "/train-lora/v1/")
        page.on("response", lambda answer: answers.append(answer.status) if "/v1/view" in answer.url else None)
        page.fill(FOLDER, str(site.pictures))
        page.click("#train_lora_train")
        wait_for_step(page, 3)
        wait_for_step(page, shown_step(page) + 5)
        assert set(answers) == ({200} if reachable else set())
        keep(page, f"route-{'there' if reachable else 'gone'}-light-1280")
    finally:
        site.close()


def test_whoever_is_in_another_tab_is_told_what_was_saved(site):
    page = site.open()
    page.evaluate("document.addEventListener('train-lora-saved', event => { window.saved = event.detail; })")
    page.fill(FOLDER, str(site.pictures))
    page.click("#train_lora_train")
    wait_for_step(page, 1)
    page.wait_for_function("window.saved === ''")
    page.get_by_role("tab", name="Other").click()
    site.jobs.stop(save=True)
    page.wait_for_function("window.saved === 'jeff_person'")


def type_until_it_stays(page, field, text):
    """Gradio writes an answer into its fields over several frames; a person would not type within them."""
    for _ in range(20):
        page.fill(field, text)
        page.wait_for_timeout(1000)
        if page.input_value(field) == text:
            return
    raise AssertionError(f"{text} does not stay in {field}")


def test_runs_wait_for_each_other(site):
    page = site.open()
    page.fill(FOLDER, str(site.pictures))
    page.click("#train_lora_train")
    page.wait_for_selector("#train_lora_train:has-text('Train next')")
    # The name was left open: Train fills it in.
    page.wait_for_function(f"document.querySelector({NAME!r}).value === 'jeff_person'")
    type_until_it_stays(page, NAME, "anna")
    page.click("#train_lora_train")
    page.wait_for_selector("#train_lora_status .queue:has-text('anna')")
    keep(page, "queue-light-1280")
    page.click("#train_lora_stop")
    page.wait_for_selector("#train_lora_status .head:has-text('anna')")


def test_a_mistake_stands_beside_its_field(site):
    page = site.open(theme="dark")
    page.fill(FOLDER, "/no/such/folder")
    page.fill(NAME, "a/b")
    page.click("#train_lora_train")
    page.wait_for_selector("#train_lora_output_name.train-lora-wrong")
    assert "does not exist" in page.inner_text("#train_lora_train_data_dir")
    assert site.jobs.status().state == "idle"
    keep(page, "mistake-dark-1280")
    page.fill(NAME, "ab")
    page.locator(NAME).blur()
    page.wait_for_selector("#train_lora_output_name:not(.train-lora-wrong)")
    assert "does not exist" in page.inner_text("#train_lora_train_data_dir"), "this is still wrong"
