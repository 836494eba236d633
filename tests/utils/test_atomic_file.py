"""Files that appear whole or not at all, also where another program holds the old one for a while."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lib_trainer.errors import NotWritten
from lib_trainer.utils import atomic_file
from lib_trainer.utils.atomic_file import replace_file, write_atomically


class Held:
    """`os.replace` as Windows has it while another program reads the target: refused so many times."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
        self.left, self._replace = times, os.replace
        monkeypatch.setattr(atomic_file.os, "replace", self)
        monkeypatch.setattr(atomic_file, "_RETRY_SECONDS", 0.001)

    def __call__(self, source: Path, target: Path) -> None:
        if self.left > 0:
            self.left -= 1
            raise PermissionError(13, "The process cannot access the file", str(target))
        self._replace(source, target)


def test_a_target_that_is_held_for_a_moment_is_replaced_afterwards(tmp_path, monkeypatch) -> None:
    path = tmp_path / "jeff.safetensors"
    path.write_bytes(b"old")
    held = Held(monkeypatch, times=3)
    replace_file(path, b"new")
    assert path.read_bytes() == b"new" and held.left == 0


def test_a_target_that_stays_held_keeps_its_content_and_leaves_nothing_behind(tmp_path, monkeypatch) -> None:
    path = tmp_path / "jeff.safetensors"
    path.write_bytes(b"old")
    Held(monkeypatch, times=10**9)
    monkeypatch.setattr(atomic_file, "HELD_SECONDS", 0.01)
    with pytest.raises(NotWritten, match=r"jeff\.safetensors could not be written"):
        write_atomically(path, b"new")
    assert [item.name for item in tmp_path.iterdir()] == ["jeff.safetensors"] and path.read_bytes() == b"old"


def test_a_full_disk_is_said_at_once(tmp_path, monkeypatch) -> None:
    def full(_self: Path, _content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(NotWritten, match="No space left"):
        write_atomically(tmp_path / "jeff.safetensors", b"new")
    assert not list(tmp_path.iterdir())


def test_what_is_written_is_on_the_disk_before_it_takes_the_name(tmp_path, monkeypatch) -> None:
    """Else a power cut may leave an empty file under the name."""
    done, fsync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (done.append(os.fstat(file).st_size), fsync(file)))
    monkeypatch.setattr(os, "replace", lambda old, new: (done.append("named"), replace(old, new)))
    replace_file(tmp_path / "jeff.safetensors", b"new")
    assert done == [3, "named"]
