"""What follows by itself on a page that stays open: the line at the top, the memory bar, the list of LoRAs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("playwright")

from tests.browser.conftest import CHROMIUM

SCRIPT = Path(__file__).parents[2] / "javascript" / "train_lora_page.js"
PAGE = """
<div id="train_lora_head"><p class="train-lora-head">a.safetensors · SD 1.x · 6.9 of 8.0 GB free</p></div>
<button id="train_lora_follow" onclick="pressed.push('memory')">draws the memory bar</button>
<button id="train_lora_grid_reload" onclick="pressed.push('loras')">lists the LoRAs</button>
<script>var pressed = [];</script>
"""

pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no browser at {CHROMIUM}; name one in CHROMIUM")


@pytest.fixture
def page(browser) -> Any:
    page = browser.new_page()
    page.set_content(PAGE)
    page.add_script_tag(path=SCRIPT)
    yield page
    page.close()


def tell(page: Any, event: str, detail: str) -> list[str]:
    """What has been pressed after this event."""
    page.evaluate("([name, detail]) => document.dispatchEvent(new CustomEvent(name, {detail}))", [event, detail])
    return page.evaluate("pressed.splice(0)")


def test_the_page_follows_the_checkpoint(page: Any) -> None:
    head = "#train_lora_head .train-lora-head"
    assert tell(page, "train-lora-head", "a.safetensors · SD 1.x · 2.0 of 8.0 GB free") == []
    assert page.inner_text(head).endswith("2.0 of 8.0 GB free"), "free memory changes all the time, and nothing follows"
    assert tell(page, "train-lora-head", "b.safetensors · SDXL · 2.0 of 8.0 GB free") == ["memory", "loras"]
    assert page.inner_text(head).startswith("b.safetensors")
    assert tell(page, "train-lora-head", "b.safetensors · SDXL · 2.0 of 8.0 GB free") == []


def test_a_run_that_is_over_gives_its_memory_back(page: Any) -> None:
    assert [tell(page, "train-lora-saved", name) for name in ("", "jeff", "jeff", "anna")] == [
        [], ["memory"], [], ["memory"],
    ]  # fmt: skip
