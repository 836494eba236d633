"""The last settings."""

from __future__ import annotations

import os

import pytest

from lib_trainer.ui.last_settings import read_settings, read_values, write_settings


def test_what_was_written_is_read(tmp_path):
    path = tmp_path / "new" / "train_lora.json"
    settings = {"kind": "style", "values": {"output_name": "Ölbild", "network_dim": 8}}
    write_settings(path, settings)
    assert read_settings(path) == settings
    assert read_values(settings, "values") == settings["values"]
    assert os.listdir(path.parent) == [path.name]


def test_nothing_there_is_no_error(tmp_path):
    assert read_settings(tmp_path / "none.json") == {}


@pytest.mark.parametrize("text", ["{", "[1]", "\xff", "[" * 100_000], ids=["cut", "a list", "no text", "nested"])
def test_a_broken_file_is_left_aside(tmp_path, text):
    path = tmp_path / "train_lora.json"
    path.write_bytes(text.encode("latin-1"))
    assert read_settings(path) == {}


def test_settings_of_another_release_are_left_out():
    assert read_values({"values": {"network_dim": 8, "gone": 1}}, "values") == {"network_dim": 8}
    assert read_values({"values": 3}, "values") == {}


def test_a_place_that_cannot_be_written_is_logged(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    write_settings(tmp_path / "file" / "train_lora.json", {})
    assert "could not be kept" in caplog.text


def test_a_failed_write_leaves_the_old_settings(tmp_path, monkeypatch):
    path = tmp_path / "train_lora.json"
    write_settings(path, {"kind": "face"})
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    write_settings(path, {"kind": "style"})
    assert read_settings(path) == {"kind": "face"}
    assert os.listdir(tmp_path) == [path.name]
