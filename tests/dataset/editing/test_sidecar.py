"""Caption files: nothing is lost, whatever happens meanwhile."""

from __future__ import annotations

import os
import threading

import pytest

from lib_trainer.dataset.editing.sidecar import (
    CaptionConflict,
    caption_file,
    read_sidecar,
    remove_sidecar,
    restore_original,
    write_sidecar,
)
from lib_trainer.errors import NotWritten, UserError


def test_a_caption_is_written_and_its_first_original_kept(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfjeff,  smile\r\n")
    first = read_sidecar(path)
    assert first.text == "jeff,  smile"
    second = write_sidecar(path, "jeff, hat", first.version)
    write_sidecar(path, "jeff, hat, smile", second.version)
    assert path.read_text() == "jeff, hat, smile"
    assert (tmp_path / ".train_lora/originals/a.txt").read_bytes() == b"\xef\xbb\xbfjeff,  smile\r\n"
    restore_original(path)
    assert path.read_bytes() == b"\xef\xbb\xbfjeff,  smile\r\n"


def test_where_there_was_no_caption_none_comes_back(tmp_path):
    path = tmp_path / "a.txt"
    write_sidecar(path, "jeff", "")
    assert path.read_text() == "jeff" and restore_original(path).version == ""
    assert not path.exists()
    with pytest.raises(UserError, match="was not changed here"):
        restore_original(tmp_path / "b.txt")


def test_a_caption_that_is_removed_comes_back(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("jeff")
    seen = read_sidecar(path).version
    path.write_text("jeff, hat")
    with pytest.raises(CaptionConflict):
        remove_sidecar(path, seen)
    remove_sidecar(path, read_sidecar(path).version)
    assert not path.exists()
    assert restore_original(path).text == "jeff, hat" == path.read_text()


def test_a_change_on_the_disk_is_noticed_and_kept(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("one")
    seen = read_sidecar(path)
    path.write_text("another program was here")
    with pytest.raises(CaptionConflict) as caught:
        write_sidecar(path, "two", seen.version)
    assert path.read_text() == "another program was here" == caught.value.current.text
    path.unlink()
    with pytest.raises(CaptionConflict):
        write_sidecar(path, "two", seen.version)


def test_of_two_people_one_writes_and_the_other_is_told(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("one")
    seen, outcomes, start = read_sidecar(path).version, [], threading.Barrier(2)

    def edit(text):
        start.wait()
        try:
            outcomes.append(write_sidecar(path, text, seen).text)
        except CaptionConflict:
            outcomes.append("conflict")

    people = [threading.Thread(target=edit, args=(text,)) for text in ("a person's", "another's")]
    for person in people:
        person.start()
    for person in people:
        person.join()
    assert outcomes.count("conflict") == 1 and path.read_text() in outcomes


@pytest.mark.parametrize("place", ["caption", "original"])
def test_a_full_disk_leaves_the_caption_as_it_was(tmp_path, monkeypatch, place):
    path = tmp_path / "a.txt"
    path.write_text("one")
    seen = read_sidecar(path)
    really = os.replace

    def full(source, target):
        if ("originals" in str(target)) == (place == "original"):
            raise OSError(28, "No space left on device")
        really(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(NotWritten, match="No space left"):
        write_sidecar(path, "two", seen.version)
    assert path.read_text() == "one" and not list(tmp_path.glob(".*.part"))


def test_a_folder_that_may_not_be_written_is_said(tmp_path, monkeypatch):
    (tmp_path / ".train_lora").write_text("in the way, as a folder that may not be written")
    with pytest.raises(NotWritten, match="Nothing can be written"):
        write_sidecar(tmp_path / "a.txt", "two", "")
    assert not (tmp_path / "a.txt").exists()


def test_hostile_text_is_kept_as_text_or_refused(tmp_path):
    path = tmp_path / "a.txt"
    written = write_sidecar(path, "<img src=x onerror=alert(1)>\0\x1b[31m\ud800\r\n\n  two ", "")
    assert path.read_text(encoding="utf-8") == "<img src=x onerror=alert(1)>  [31m\ntwo" == written.text
    with pytest.raises(UserError, match="1024 KiB"):
        write_sidecar(path, "x" * 2**20, written.version)
    assert read_sidecar(path) == written


def test_a_file_that_is_not_edited_here_is_left_alone(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"caf\xe9 au lait, gar\xe7on")
    found = read_sidecar(path)
    assert "not Unicode" in found.problem
    with pytest.raises(UserError, match="not changed"):
        write_sidecar(path, "coffee", found.version)
    assert path.read_bytes() == b"caf\xe9 au lait, gar\xe7on"
    path.unlink()
    (tmp_path / "elsewhere.txt").write_text("secret")
    path.symlink_to(tmp_path / "elsewhere.txt")
    with pytest.raises(UserError, match="link"):
        write_sidecar(path, "coffee", "")
    assert (tmp_path / "elsewhere.txt").read_text() == "secret"


def test_the_caption_file_is_the_one_that_a_run_reads(tmp_path):
    image = tmp_path / "a.png"
    assert caption_file(image, (".tags", ".txt")) == tmp_path / "a.tags"
    (tmp_path / "a.txt").touch()
    assert caption_file(image, (".tags", ".txt")) == tmp_path / "a.txt"
