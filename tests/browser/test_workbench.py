"""Captions & crops in a real browser: files dropped, captions edited, changed in bulk and put back, crops, exclusions.

A run trains exactly what the page shows.
"""

from __future__ import annotations

import base64
import time

import pytest

pytest.importorskip("gradio")
pytest.importorskip("playwright")

from PIL import Image

from lib_trainer.config.dataset import DatasetConfig
from lib_trainer.dataset.scan import scan_folder
from tests.browser.conftest import CHROMIUM
from tests.browser.test_tab import FOLDER, Site, keep, wait_for_step
from tests.waiting import PATIENCE_S

pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no browser at {CHROMIUM}; name one in CHROMIUM")

CARD = ".train-lora-workbench [data-number='{}']"


@pytest.fixture
def site(tmp_path, browser):
    site = Site(tmp_path, browser)
    yield site
    site.close()


def open_bench(page, folder):
    page.fill(FOLDER, str(folder))
    page.click("#train_lora_scan")
    page.click("[data-open-workbench]")
    page.wait_for_selector(CARD.format(0))


def wait_for_text(page, path, text):
    """The page goes on meanwhile: its requests pass through this process."""
    end = time.monotonic() + PATIENCE_S
    while not (path.exists() and path.read_text(encoding="utf-8") == text):
        assert time.monotonic() < end, "it was not written in time"
        page.wait_for_timeout(50)


def bulk(page, action, text="", new=""):
    page.select_option("[data-bulk=action]", action)
    if text:
        page.fill("[data-bulk=text]", text)
    if new:
        page.fill("[data-bulk=new]", new)
    page.click("[data-do=bulk]")
    page.wait_for_selector(".train-lora-workbench output:has-text('changed')")


def test_what_is_edited_excluded_and_cropped_is_what_the_run_trains(site):
    folder = site.pictures / "10_jeff_person"
    (folder / "1.txt").write_text("jeff_person, <img src=x onerror='window.hacked = 1'>, portrait")
    page = site.open()
    open_bench(page, site.pictures)
    assert page.locator(CARD.format(1) + " textarea").input_value().startswith("jeff_person, <img")

    page.fill(CARD.format(2) + " textarea", "jeff_person, a new caption")
    wait_for_text(page, folder / "2.txt", "jeff_person, a new caption")
    page.wait_for_selector(CARD.format(2) + " .state:has-text('Saved')")
    page.keyboard.press("Alt+ArrowDown")
    page.keyboard.type(", hat")
    page.keyboard.press("Control+s")
    wait_for_text(page, folder / "3.txt", "jeff_person, portrait photo 3, hat")

    bulk(page, "replace", "portrait photo", "studio photo")
    wait_for_text(page, folder / "5.txt", "jeff_person, studio photo 5")
    keep(page, "workbench-light-1280")
    page.click("[data-do=undo]")
    wait_for_text(page, folder / "5.txt", "jeff_person, portrait photo 5")

    page.locator(".tags [data-tag=hat]").click()
    page.wait_for_selector(".place:has-text('1–1 of 1')")
    assert page.locator(CARD.format(3)).count() == 1
    page.locator(".tags [data-tag=hat]").click()
    page.wait_for_selector(".place:has-text('of 8')")

    page.click(CARD.format(4) + " [data-do=exclude]")
    page.wait_for_selector(CARD.format(4) + ".excluded")
    frame = page.locator(CARD.format(5) + " .frame")
    frame.scroll_into_view_if_needed()
    box = frame.bounding_box()
    page.mouse.move(box["x"] + 1, box["y"] + 1)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, steps=4)
    page.mouse.up()
    page.wait_for_selector(CARD.format(5) + " [data-do=whole]", state="visible")

    page.click("#train_lora_train")
    wait_for_step(page, 1)
    scan = scan_folder(site.run.recipes[-1].dataset)
    by_name = {sample.image.name: sample for sample in scan.samples}
    assert [sample.image.name for sample in scan.excluded] == ["4.jpg"] and "4.jpg" not in by_name
    assert by_name["2.jpg"].caption == "jeff_person, a new caption"
    assert by_name["3.jpg"].caption == "jeff_person, portrait photo 3, hat"
    left, top, right, bottom = by_name["5.jpg"].crop_px
    assert left < 20 and top < 20 and abs(right - 400) < 25 and abs(bottom - 480) < 25
    assert page.evaluate("window.hacked") is None


def test_an_answer_that_comes_while_a_button_is_pressed_does_not_lose_the_click(site):
    caption = site.pictures / "10_jeff_person" / "5.txt"
    page = site.open()
    open_bench(page, site.pictures)
    page.fill(CARD.format(5) + " textarea", "jeff_person, elsewhere")
    page.wait_for_selector(".tags [data-tag=elsewhere]")
    page.hover(".tags [data-tag='portrait photo 3']")
    page.mouse.down()
    page.evaluate("void window.trainLoraWorkbench.change({do: 'undo'}).then(window.trainLoraWorkbench.load)")
    wait_for_text(page, caption, "jeff_person, portrait photo 5")
    page.wait_for_timeout(1000)
    assert page.locator(".tags [data-tag=elsewhere]").count() == 1, "the table stays under the pointer"
    page.mouse.up()
    page.wait_for_selector(".place:has-text('1–1 of 1')")
    page.wait_for_selector(".tags [data-tag=elsewhere]", state="detached")
    # A press whose release nobody told of, as over the browser's own menu.
    page.evaluate("document.dispatchEvent(new PointerEvent('pointerdown'))")
    page.evaluate("void window.trainLoraWorkbench.load().then(() => { window.loaded = true; })")
    page.mouse.move(5, 5)
    page.wait_for_function("window.loaded")


def test_an_older_answer_does_not_replace_a_newer_one(site):
    page = site.open()
    open_bench(page, site.pictures)
    page.wait_for_selector(".tags [data-tag='portrait photo 3']")
    # All pictures are asked for first, and come last.
    page.evaluate(
        """() => {
            const real = window.fetch;
            window.fetch = (url, options) => real(url, options).then(answer => /tag=$/.test(url)
                ? new Promise(done => setTimeout(() => { window.late = true; done(answer); }, 600)) : answer);
            window.trainLoraWorkbench.load(true);
        }"""
    )
    page.locator(".tags [data-tag='portrait photo 3']").click()
    page.wait_for_selector(".place:has-text('1–1 of 1')")
    page.wait_for_function("window.late")
    page.wait_for_timeout(200)
    assert page.inner_text(".train-lora-workbench .place") == "1–1 of 1"


def test_two_people_at_once_and_a_change_on_the_disk(site):
    folder = site.pictures / "10_jeff_person"
    page = site.open()
    open_bench(page, site.pictures)
    (folder / "2.txt").write_text("jeff_person, written by another program")
    page.fill(CARD.format(2) + " textarea", "jeff_person, mine")
    page.wait_for_selector(CARD.format(2) + " .state:has-text('written by another program')")
    assert (folder / "2.txt").read_text() == "jeff_person, written by another program"
    assert page.input_value(CARD.format(2) + " textarea") == "jeff_person, mine"
    keep(page, "workbench-conflict-light-1280")
    page.click(CARD.format(2) + " .state button:has-text('Keep mine')")
    wait_for_text(page, folder / "2.txt", "jeff_person, mine")


def test_files_that_are_dropped_become_a_dataset(site, tmp_path):
    data = []
    for number, color in enumerate(("red", "green", "blue")):
        path = tmp_path / f"{number}.png"
        Image.radial_gradient("L").resize((800, 800)).convert("RGB").save(path)
        Image.new("RGB", (800, 800), color).save(path) if number else None
        data.append(base64.b64encode(path.read_bytes()).decode())
    page = site.open(width=1920, theme="dark")
    page.fill("#train_lora_trigger_word textarea, #train_lora_trigger_word input", "anna")
    page.evaluate(
        """files => {
            const transfer = new DataTransfer();
            files.forEach((text, number) => {
                const bytes = Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
                transfer.items.add(new File([bytes], number + ".png", {type: "image/png"}));
            });
            const how = {dataTransfer: transfer, bubbles: true, composed: true, cancelable: true};
            document.querySelector("#train_lora_gallery").dispatchEvent(new DragEvent("drop", how));
        }""",
        data,
    )
    page.wait_for_selector("#train_lora_gallery img")
    folder = tmp_path / "train_lora/datasets/anna"
    assert sorted(path.name for path in (folder / "10_anna").glob("*.png")) == ["0.png", "1.png", "2.png"]
    page.wait_for_function(f"document.querySelector({FOLDER!r}).value === {str(folder)!r}")
    page.click("[data-open-workbench]")
    page.wait_for_selector(CARD.format(2) + " img")
    page.wait_for_function("[...document.querySelectorAll('.train-lora-workbench img')].every(i => i.naturalWidth > 0)")
    page.wait_for_selector("#train_lora_gallery .findings li")
    bulk(page, "first")
    assert (folder / "10_anna/1.txt").read_text() == "anna"
    keep(page, "workbench-dark-1920")


def test_findings_lead_to_their_pictures(site):
    folder = site.pictures / "10_jeff_person"
    (folder / "7-copy.jpg").write_bytes((folder / "7.jpg").read_bytes())
    page = site.open(width=800, theme="dark")
    page.fill(FOLDER, str(site.pictures))
    page.click("#train_lora_scan")
    page.click("#train_lora_gallery .findings li[data-pictures]:has-text('show the same')")
    page.wait_for_selector(".train-lora-workbench .scope:has-text('show the same')")
    assert page.locator(".train-lora-workbench article").count() >= 2
    keep(page, "workbench-dark-800")


class Reader:
    """A captioner of the host's."""

    label = "Reader"

    def caption(self, picture, threshold):
        return f"seen at {threshold:g}, hat"


def test_a_machine_captions_what_has_no_caption(site):
    folder = site.pictures / "10_jeff_person"
    site.host.captioners = lambda: [Reader()]
    page = site.open()
    open_bench(page, site.pictures)
    page.click(".train-lora-workbench .auto summary")
    page.wait_for_selector("[data-auto=captioner] option", state="attached")
    page.fill("[data-auto=threshold]", "0.5")
    page.click("[data-do=auto]")
    wait_for_text(page, folder / "0.txt", "jeff_person, seen at 0.5, hat")
    page.wait_for_selector(".auto .progress:has-text('1 captioned by Reader')")
    page.wait_for_function(
        "document.querySelector(`.train-lora-workbench [data-number='0'] textarea`).value.includes('seen at')"
    )
    assert "7 tokens" in page.inner_text(CARD.format(0) + " .state")
    keep(page, "workbench-captioned-light-1280")
    page.click("[data-do=undo]")
    page.wait_for_function("document.querySelector(`.train-lora-workbench [data-number='0'] textarea`).value === ''")
    assert not (folder / "0.txt").exists()


def test_several_folders_are_a_table_and_one_is_marked_as_regularisation(site):
    (site.pictures / "2_man").mkdir()
    (site.pictures / "10_jeff_person/0.jpg").rename(site.pictures / "2_man/0.jpg")
    page = site.open()
    page.fill(FOLDER, str(site.pictures.parent))
    page.click(".train-lora-browse summary")
    page.click(".train-lora-browse [data-folder]:text-is('pictures')")
    page.wait_for_selector(".train-lora-browse [data-folder]:text-is('2_man')")
    assert page.input_value(FOLDER) == str(site.pictures)
    page.click("#train_lora_scan")
    rows = page.locator("#train_lora_gallery .epoch tr")
    rows.nth(2).wait_for()
    assert rows.nth(1).inner_text().split() == ["10_jeff_person", "7", "10", "70", "(97%)", "167"]
    page.check("[data-regularise='2_man']")
    page.wait_for_selector(".train-lora-workbench output:has-text('2_man regularises')", state="attached")
    page.wait_for_selector("[data-regularise='2_man'][checked]")
    marked = [sample for sample in scan_folder(DatasetConfig(str(site.pictures))).samples if sample.regularising]
    assert [sample.image.parent.name for sample in marked] == ["2_man"]
    keep(page, "several-folders-light-1280")
