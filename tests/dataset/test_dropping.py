"""Files from a browser: taken where they are pictures or captions, and kept within their folder."""

from __future__ import annotations

import zipfile

import pytest
from PIL import Image

from lib_trainer.dataset import dropping
from lib_trainer.dataset.dropping import safe_name, take_dropped
from lib_trainer.dataset.scan import scan_folder
from lib_trainer.errors import NotWritten, UserError
from tests.dataset.tiny import make_config


@pytest.fixture
def upload(tmp_path):
    def make(name, color="red"):
        path = tmp_path / "upload" / name
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (64, 64), color).save(path)
        return path

    return make


def archive(tmp_path, **files):
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name, data in files.items():
            target.writestr(name, data)
    return path


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_pictures_captions_and_a_zip_make_a_dataset(tmp_path, upload):
    (tmp_path / "upload").mkdir()
    (tmp_path / "upload/a.txt").write_text("jeff, smile")
    data = upload("a.png").read_bytes()
    files = {"sub/b.png": data, "sub/b.txt": b"jeff, hat", "__MACOSX/sub/._b.png": b"x", "notes.md": b"x"}
    dropped = take_dropped([upload("a.png"), tmp_path / "upload/a.txt", archive(tmp_path, **files)], tmp_path, "jeff")
    assert (dropped.pictures, dropped.captions) == (2, 2) and "notes.md" in dropped.refused[0]
    assert dropped.folder == tmp_path / "train_lora/datasets/jeff"
    scan = scan_folder(make_config(dropped.folder))
    assert [(s.image.name, s.caption, s.repeats) for s in scan.samples] == [
        ("a.png", "jeff, smile", 10), ("b.png", "jeff, hat", 10),
    ]  # fmt: skip


def test_nothing_is_written_over_and_a_caption_follows_its_picture(tmp_path, upload):
    take_dropped([upload("a.png")], tmp_path, "jeff")
    (tmp_path / "upload/a.txt").write_text("second")
    dropped = take_dropped([upload("a.png", "blue"), tmp_path / "upload/a.txt"], tmp_path, "jeff")
    assert names(dropped.folder) == ["10_jeff/a-2.png", "10_jeff/a-2.txt", "10_jeff/a.png"]


def test_no_name_leads_out_of_the_folder(tmp_path, upload):
    data = upload("a.png").read_bytes()
    hostile = {"../../../out.png": data, "/etc/out.png": data, "C:\\out.png": data, "..": b"x", "con.png": data}
    dropped = take_dropped([archive(tmp_path, **hostile)], tmp_path / "data", "../../jeff")
    assert not (tmp_path / "out.png").exists()
    assert dropped.folder.is_relative_to(tmp_path / "data/train_lora/datasets")
    assert names(tmp_path / "data/train_lora/datasets") == [
        "_.._jeff/10__.._jeff/_con.png", "_.._jeff/10__.._jeff/out-2.png", "_.._jeff/10__.._jeff/out-3.png",
        "_.._jeff/10__.._jeff/out.png",
    ]  # fmt: skip


def test_what_comes_out_of_an_archive_is_counted_not_what_it_claims(tmp_path, upload, monkeypatch):
    monkeypatch.setattr(dropping, "MAX_FILE_BYTES", 2**21)
    files = {"bomb.png": b"\0" * 2**23, "long.txt": b"x" * 2**17, "a.png": upload("a.png").read_bytes()}
    dropped = take_dropped([archive(tmp_path, **files)], tmp_path, "jeff")
    assert names(dropped.folder) == ["10_jeff/a.png"]
    assert [reason.split(":")[0] for reason in dropped.refused] == ["bomb.png", "long.txt"]
    monkeypatch.setattr(dropping, "MOST_BYTES", 2**20)
    with pytest.raises(UserError, match="MiB were dropped"):
        take_dropped([archive(tmp_path, **{"big.png": b"\0" * (2**21 - 1)})], tmp_path, "other")
    assert not names(tmp_path / "train_lora/datasets/other")
    monkeypatch.setattr(dropping, "MOST_FILES", 1)
    with pytest.raises(UserError, match="2 files"):
        take_dropped([archive(tmp_path, **{"a.png": b"x", "b.png": b"x"})], tmp_path, "many")


def test_a_broken_archive_is_named(tmp_path):
    broken = tmp_path / "set.zip"
    broken.write_bytes(b"PK\3\4 nothing more")
    with pytest.raises(UserError, match=r"set\.zip: it cannot be unpacked"):
        take_dropped([broken], tmp_path, "jeff")


def test_names_are_what_every_system_takes():
    assert safe_name("a<b>:c\0.") == "a_b__c_" and safe_name("NUL.txt") == "_NUL.txt" and safe_name(" .. ") == ""
    assert len(safe_name("x" * 500)) == 100


def test_a_caption_that_lies_there_alone_is_not_written_over(tmp_path, upload):
    folder = take_dropped([upload("a.png")], tmp_path, "jeff").folder
    (folder / "10_jeff/a.png").unlink()
    (folder / "10_jeff/a.txt").write_text("typed by hand")
    (tmp_path / "upload/a.txt").write_text("dropped")
    take_dropped([tmp_path / "upload/a.txt"], tmp_path, "jeff")
    assert (folder / "10_jeff/a.txt").read_text() == "typed by hand"
    assert (folder / "10_jeff/a-2.txt").read_text() == "dropped"


def test_a_full_disk_is_said_and_leaves_whole_files_alone(tmp_path, upload, monkeypatch):
    really, copied = dropping._Taking._copy, []

    def copy(taking, source, part, limit):
        copied.append(part)
        if len(copied) == 2:
            part.write_bytes(b"half a pic")
            raise OSError(28, "No space left on device")
        really(taking, source, part, limit)

    files = [upload("a.png"), upload("b.png")]
    monkeypatch.setattr(dropping._Taking, "_copy", copy)
    with pytest.raises(NotWritten, match=r"b\.png could not be written: No space left"):
        take_dropped(files, tmp_path, "jeff")
    assert names(tmp_path / "train_lora/datasets/jeff") == ["10_jeff/a.png"], "and nothing half written"
