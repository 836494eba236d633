"""After "Send to txt2img" the page shows what the picture was sent to, however far down the grid was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("playwright")

from tests.browser.conftest import CHROMIUM

SCRIPT = Path(__file__).parents[2] / "javascript" / "train_lora_grid.js"
# The WebUI takes a moment to change its tab.
WEBUI = """
<div id="tab_txt2img" style="display: none; height: 3000px">txt2img</div>
<div id="ours" style="height: 3000px; padding-top: 2500px">
  <div id="train_lora_grid_view"></div><button id="train_lora_cell_send" onclick="setTimeout(change, 150)">Send</button>
</div>
<script>function change() { tab_txt2img.style.display = "block"; ours.style.display = "none"; }</script>
"""
PAGE_OF_OUR_OWN = """
<textarea id="train_lora_prompt"></textarea>
<div style="height: 3000px; padding-top: 2500px">
  <div id="train_lora_grid_view"></div><button id="train_lora_cell_send">Send</button>
</div>
"""

pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no browser at {CHROMIUM}; name one in CHROMIUM")


@pytest.fixture
def page(browser) -> Any:
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    yield page
    page.close()


def send_from_below(page: Any, content: str) -> None:
    page.set_content(content)
    page.add_script_tag(path=SCRIPT)
    page.locator("#train_lora_cell_send").scroll_into_view_if_needed()
    assert page.evaluate("scrollY") > 1000
    page.click("#train_lora_cell_send")


def test_the_webuis_tab_is_shown_from_its_top(page: Any) -> None:
    send_from_below(page, WEBUI)
    page.wait_for_selector("#tab_txt2img", state="visible")
    page.wait_for_function("scrollY === 0")


def test_the_page_of_our_own_goes_to_the_prompt(page: Any) -> None:
    send_from_below(page, PAGE_OF_OUR_OWN)
    page.wait_for_function(
        "(box => box.top >= 0 && box.bottom <= innerHeight)(train_lora_prompt.getBoundingClientRect())"
    )
