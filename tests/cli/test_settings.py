"""`settings`: the list of every setting."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lib_trainer.cli.main import main
from lib_trainer.config.recipe import field_types

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"


def test_the_page_of_settings_is_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings", "--markdown"]) == 0
    assert capsys.readouterr().out == PAGE.read_text(encoding="utf-8")


def test_every_setting_is_listed_with_its_default_and_range(capsys: pytest.CaptureFixture[str]) -> None:
    main(["settings"])
    text = capsys.readouterr().out
    assert all(f"  {name} = " in text for name in field_types())
    assert "network_dim = 32\n      Network rank (dim) (1 to 100000): " in text
    assert "resolution_px = 768,768" in text and "flip_aug = false" in text


def test_programs_get_the_metadata(capsys: pytest.CaptureFixture[str]) -> None:
    main(["settings", "--json"])
    settings = json.loads(capsys.readouterr().out)["settings"]
    assert settings["factor"]["adapters"] == ["lokr"] and settings["lr_warmup"]["unit"] == "%"
