"""The WebUI's LoRA cards are refreshed once for a new file, and nobody is disturbed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("playwright")

from tests.browser.conftest import CHROMIUM

SCRIPT = Path(__file__).parents[2] / "javascript" / "train_lora_cards.js"
# The card of the WebUI's own page, and its own button: it takes a moment to draw the cards anew.
PAGE = """
<div id="txt2img_lora_cards" style="height: 90px"><div class="card" data-name="old">old</div></div>
<div id="txt2img_lora_extra_refresh" onclick="presses += 1">refresh</div>
<script>var presses = 0;</script>
"""
LONG_ENOUGH_MS = 1300

pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no browser at {CHROMIUM}; name one in CHROMIUM")


@pytest.fixture
def page(browser) -> Any:
    page = browser.new_page()
    page.set_content(PAGE)
    page.add_script_tag(path=SCRIPT)
    yield page
    page.close()


def tell(page: Any, saved: str) -> int:
    """Tells that this file was saved -> how often the cards' button was pressed by then."""
    page.evaluate("name => document.dispatchEvent(new CustomEvent('train-lora-saved', {detail: name}))", saved)
    page.wait_for_timeout(LONG_ENOUGH_MS)
    return page.evaluate("presses")


def test_a_missing_card_is_fetched_once(page: Any) -> None:
    assert tell(page, "") == 0
    assert tell(page, "new 'one'") == 1
    assert tell(page, "new 'one'") == 1, "a card that the WebUI hides is not asked for again and again"
    assert tell(page, "old") == 1, "its card is there"
    tell(page, "")
    assert tell(page, "new 'one'") == 2, "another run of that name"


def test_nothing_moves_under_the_pointer(page: Any) -> None:
    page.hover("#txt2img_lora_cards")
    assert tell(page, "new") == 0
    page.hover("#txt2img_lora_extra_refresh")
    page.wait_for_function("presses === 1")
