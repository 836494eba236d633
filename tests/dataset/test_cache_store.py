import errno
import os

import pytest
import torch

from lib_trainer.dataset import cache_store as stores
from lib_trainer.dataset.cache_store import LatentStore, TextStore, entry_path, prune_cache, read_tensors, write_tensors
from lib_trainer.errors import UserError
from lib_trainer.models.base import CheckpointInfo

PLACES = (("latents", "a.safetensors"), ("texts", "b.safetensors"), ("latents", "c.safetensors"))
TENSORS = {"latents": torch.arange(16.0).reshape(4, 2, 2), "size": torch.ones(6)}


def test_tensors_come_back_as_they_were(tmp_path):
    path = tmp_path / "ab/x.safetensors"
    write_tensors(path, TENSORS)
    read = read_tensors(path)
    assert set(read) == set(TENSORS)
    assert all(torch.equal(read[name], TENSORS[name]) for name in TENSORS)
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("damage", ["cut", "empty", "flipped", "noise", "folder", "gone"])
def test_a_damaged_file_counts_as_missing(tmp_path, damage):
    path = tmp_path / "x.safetensors"
    write_tensors(path, TENSORS)
    data = bytearray(path.read_bytes())
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage != "gone":
        flipped = data[:-1] + bytes([data[-1] ^ 1])
        path.write_bytes({"cut": data[:-4], "empty": b"", "flipped": flipped, "noise": b"\xff" * 99}[damage])
    assert read_tensors(path) is None
    with pytest.raises(UserError, match="missing or damaged"):
        TextStore({"": path}).read("")


def test_the_key_holds_everything_that_decides():
    def path(checkpoint=("name", "sha", "vae"), **what):
        return entry_path(stores.Path("cache"), CheckpointInfo(*checkpoint), {"caption": "a", "clip_skip": 1, **what})

    paths = [
        path(), path(caption="b"), path(clip_skip=2),
        path(("other", "sha", "vae")), path(("name", "x", "vae")), path(("name", "sha", "x")),
    ]  # fmt: skip
    assert len(set(paths)) == len(paths)
    assert path() == paths[0]


@pytest.mark.parametrize(("code", "message"), [(errno.ENOSPC, "is full"), (errno.EACCES, "cannot be written")])
def test_a_disk_that_takes_nothing_is_said_and_leaves_nothing(tmp_path, monkeypatch, code, message):
    def fail(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(UserError, match=message) as caught:
        write_tensors(tmp_path / "ab/x.safetensors", TENSORS)
    assert "Cache on disk" in caught.value.hint
    assert list(tmp_path.rglob("*.*")) == []


def test_a_file_where_the_cache_should_be_is_said(tmp_path):
    (tmp_path / "cache").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_tensors(tmp_path / "cache/ab/x.safetensors", TENSORS)


def test_files_are_read_when_they_are_needed(tmp_path):
    path = tmp_path / "x.safetensors"
    store = LatentStore(None, {(0, 1): path})
    write_tensors(path, TENSORS)
    latents, size = store.read(0, 1)
    assert torch.equal(latents, TENSORS["latents"])
    assert torch.equal(size, TENSORS["size"])


def test_what_no_run_has_read_for_long_is_removed_and_nothing_else(tmp_path):
    kept, used, unused = (tmp_path / kind / "ab" / name for kind, name in PLACES)
    for path in (kept, used, unused, tmp_path / "runs" / "ab" / "state.safetensors"):
        write_tensors(path, TENSORS)
        os.utime(path, (0, 0) if path != kept else None)
    assert read_tensors(used) is not None
    assert prune_cache(tmp_path, unused_days=30) == 1
    assert [path.exists() for path in (kept, used, unused)] == [True, True, False]
    assert (tmp_path / "runs" / "ab" / "state.safetensors").exists()
