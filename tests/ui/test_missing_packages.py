"""Packages that are not installed: named, with what works without them."""

from __future__ import annotations

import pytest

pytest.importorskip("gradio")

from lib_trainer.ui import missing_packages as packages


@pytest.fixture
def lacking(monkeypatch):
    """Pretends that packages are missing, and whether there is a GPU."""

    def lack(*names, gpu):
        monkeypatch.setattr(packages, "find_spec", lambda name: None if name in names else object())
        monkeypatch.setattr("torch.cuda.is_available", lambda: gpu)

    return lack


def test_missing_packages_are_named_with_what_still_works(lacking):
    lacking("prodigyopt", gpu=True)
    shown = packages.show_missing(in_webui=True)
    assert "prodigyopt" in shown and "All others do" in shown and "lycoris" not in shown
    assert "train-lora-error" not in shown, "training works without it"
    lacking("lycoris", gpu=True)
    assert "train-lora-error" in packages.show_missing(in_webui=True)


def test_bitsandbytes_is_missed_on_a_gpu_only(lacking):
    lacking("bitsandbytes", gpu=False)
    assert packages.show_missing(in_webui=False) == ""
    lacking("bitsandbytes", gpu=True)
    assert "bitsandbytes" in packages.show_missing(in_webui=False)


def test_the_advice_fits_the_program(lacking, page):
    lacking("prodigyopt", gpu=False)
    assert "Restart the WebUI" in page.actions.open_page()[0]
    alone = packages.show_missing(in_webui=False)
    assert "pip install prodigyopt" in alone and "WebUI" not in alone
