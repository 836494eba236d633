"""All settings in a real browser: filtered, marked where they differ from the recipe, and set back to it."""

from __future__ import annotations

import pytest

pytest.importorskip("gradio")
pytest.importorskip("playwright")

from lib_trainer.models.families import FLUX, SD1
from lib_trainer.models.placement import MemoryProfile
from tests.browser.conftest import CHROMIUM
from tests.browser.test_tab import Site, keep

pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no browser at {CHROMIUM}; name one in CHROMIUM")

RANK = "#train_lora_network_dim"


@pytest.fixture(scope="module")
def site(tmp_path_factory, browser):
    site = Site(tmp_path_factory.mktemp("site"), browser)
    yield site
    site.close()


@pytest.fixture(scope="module")
def opened(site: Site):
    page = site.open()
    page.click("[data-fold=train_lora_all]")
    page.wait_for_selector(f"{RANK} input", state="visible")
    return page


@pytest.fixture
def page(opened):
    """The page as it was opened: another one would take seconds."""
    opened.wait_for_selector(".train-lora-filter .count:has-text('0 changed')")
    yield opened
    opened.fill(".train-lora-filter [type=search]", "")
    opened.locator(".train-lora-filter [type=checkbox]").uncheck()
    for fewer in opened.locator(".train-lora-group [data-more]:has-text('fewer'):visible").all():
        fewer.click()
    opened.locator("#train_lora_kind label").filter(has_text="A face").click()
    for of_another_kind in ("factor", "diff_target_dir"):
        opened.wait_for_selector(f"#train_lora_{of_another_kind}", state="hidden")
    if not opened.locator(".train-lora-filter .count:has-text('0 changed')").count():
        opened.click(".train-lora-filter [data-reset]")
    opened.wait_for_selector(".train-lora-filter .count:has-text('0 changed')")
    # Gradio writes an answer into its fields over several frames.
    opened.wait_for_timeout(500)


def show_more(page, group: str) -> None:
    page.locator(".train-lora-group", has=page.get_by_role("heading", name=group)).locator("[data-more]").click()


def visible_settings(page) -> list[str]:
    return page.evaluate(
        "[...document.querySelectorAll('#train_lora_all .form > [id^=train_lora_]')]"
        ".filter(field => field.getClientRects().length).map(field => field.id.slice(11))"
    )


def test_groups_are_grids_of_four_columns_at_1280_px(page):
    columns = page.evaluate(
        "[...document.querySelectorAll('.train-lora-group .form')]"
        ".map(form => getComputedStyle(form).gridTemplateColumns.split(' ').length)"
    )
    assert columns == [4] * 5
    assert page.locator("#train_lora_all").bounding_box()["height"] < 1500
    keep(page, "all-settings-light-1280")


def test_a_group_shows_its_common_settings_and_the_others_on_a_click(page):
    assert "network_dim" in visible_settings(page) and "conv_dim" not in visible_settings(page)
    show_more(page, "What it learns")
    assert "conv_dim" in visible_settings(page)
    keep(page, "one-group-open-light-1280")
    show_more(page, "What it learns")
    assert "conv_dim" not in visible_settings(page)


def test_the_filter_finds_settings_by_label_help_and_name(page):
    page.fill(".train-lora-filter [type=search]", "bucket")
    found = ["enable_bucket", "min_bucket_reso", "max_bucket_reso", "bucket_reso_steps", "bucket_no_upscale"]
    found.append("bucket_panoramas")
    assert visible_settings(page) == found, "rare ones are found as well"
    page.fill(".train-lora-filter [type=search]", "also saves")
    assert visible_settings(page) == ["save_every_n_steps", "save_every_n_epochs"]
    page.fill(".train-lora-filter [type=search]", "resume_every")
    assert visible_settings(page) == ["resume_every_minutes"]
    page.fill(".train-lora-filter [type=search]", "nonsense")
    assert "No setting fits" in page.inner_text(".train-lora-filter .count")


def test_settings_of_another_adapter_are_hidden(page):
    show_more(page, "What it learns")
    assert "factor" not in visible_settings(page)
    page.locator("#train_lora_kind label").filter(has_text="A style").click()
    page.wait_for_selector("#train_lora_factor", state="visible")
    assert "decompose_both" in visible_settings(page)


def test_step_1_asks_for_what_the_mode_learns_from(page):
    def shown() -> list[str]:
        names = ("train_data_dir", "diff_target_dir", "original_prompt", "trigger_word")
        return [name for name in names if page.locator(f"#train_lora_{name}").is_visible()]

    assert shown() == ["train_data_dir", "trigger_word"]
    page.locator("#train_lora_kind label").filter(has_text="slider").click()
    page.wait_for_selector("#train_lora_original_prompt", state="visible")
    assert shown() == ["original_prompt"] and "enable_bucket" not in visible_settings(page)
    page.locator("#train_lora_kind label").filter(has_text="pairs").click()
    page.wait_for_selector("#train_lora_diff_target_dir", state="visible")
    assert shown() == ["train_data_dir", "diff_target_dir", "trigger_word"]
    keep(page, "difference-light-1280")


def test_what_differs_is_marked_and_goes_back_with_one_click(page):
    page.fill(f"{RANK} input", "24")
    page.locator("#train_lora_flip_aug input").check()
    page.wait_for_selector(f"{RANK}.train-lora-changed")
    page.wait_for_selector(".train-lora-filter .count:has-text('2 changed')")
    page.wait_for_selector("[data-fold=train_lora_all]:has-text('2 changed')")
    page.locator(".train-lora-filter [type=checkbox]").check()
    assert sorted(visible_settings(page)) == ["flip_aug", "network_dim"]
    keep(page, "changed-settings-light-1280")
    page.click(f"{RANK} [data-reset]")
    page.wait_for_function("document.querySelector('#train_lora_network_dim input').value === '32'")
    page.wait_for_selector(".train-lora-filter .count:has-text('1 changed')")
    page.fill("#train_lora_max_train_steps input", "10")
    page.wait_for_selector("#train_lora_max_train_steps.train-lora-changed")
    page.click(".train-lora-filter [data-reset]")
    page.wait_for_selector(".train-lora-filter .count:has-text('0 changed')")
    assert page.input_value("#train_lora_max_train_steps input") == "1200"
    assert not page.locator("#train_lora_flip_aug input").is_checked()


def test_a_mistake_is_shown_whatever_the_filter_says(page):
    page.fill(f"{RANK} input", "0")
    page.fill(".train-lora-filter [type=search]", "bucket")
    page.click("#train_lora_train")
    page.wait_for_selector(f"{RANK}.train-lora-wrong", state="visible")


def test_what_the_checkpoints_family_does_not_use_is_hidden(site: Site, monkeypatch):
    only_flow, only_unets = "discrete_flow_shift", "noise_offset"
    for family, shown, hidden in ((SD1, only_unets, only_flow), (FLUX, only_flow, only_unets)):
        profile = MemoryProfile(family, family.shape, 2)
        monkeypatch.setattr(site.host, "memory_profile", lambda profile=profile: profile)
        page = site.open()
        page.click("[data-fold=train_lora_all]")
        page.wait_for_selector(f"#train_lora_memory [data-family={family.key}]", state="attached")
        page.fill(".train-lora-filter [type=search]", shown)
        page.wait_for_selector(f"#train_lora_{shown}", state="visible")
        page.fill(".train-lora-filter [type=search]", hidden)
        page.wait_for_selector(".count:has-text('No setting fits')")
        keep(page, f"settings-of-{family.key}")
        page.close()
