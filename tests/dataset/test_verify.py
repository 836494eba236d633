import os
import time

import pytest

from lib_trainer.dataset import verify as verify_module
from lib_trainer.dataset.images import open_picture
from lib_trainer.dataset.scan import scan_folder
from lib_trainer.dataset.verify import PictureVerifier
from lib_trainer.errors import UserError
from tests.dataset.tiny import make_config


def verify(folder, verifier=None):
    return (verifier or PictureVerifier()).verify(scan_folder(make_config(folder)), str(folder))


def cut_off(path):
    path.write_bytes(path.read_bytes()[:-200])
    return path


def test_a_truncated_picture_is_skipped_though_its_header_is_whole(tmp_path, draw_picture):
    draw_picture("5_jeff/good.jpg")
    cut_off(draw_picture("5_jeff/broken.jpg"))
    assert len(scan_folder(make_config(tmp_path)).samples) == 2
    found = verify(tmp_path)
    assert [sample.image.name for sample in found.scan.samples] == ["good.jpg"]
    assert [(item.path.name, "truncated" in item.reason) for item in found.scan.skipped] == [("broken.jpg", True)]
    assert (found.decoded, found.total) == (2, 2)


def test_a_folder_without_a_whole_picture_is_an_error(tmp_path, draw_picture):
    cut_off(draw_picture("broken.jpg"))
    with pytest.raises(UserError, match=r"None of the pictures.*broken\.jpg: .*truncated"):
        verify(tmp_path)


def test_a_file_is_decoded_once_until_it_changes(tmp_path, draw_picture, monkeypatch):
    draw_picture("a.jpg")
    verifier, decoded = PictureVerifier(), []
    monkeypatch.setattr(verify_module, "open_picture", lambda path: decoded.append(path) or open_picture(path))
    for _ in range(2):
        verify(tmp_path, verifier)
        assert len(decoded) == 1
    # Another picture may have as many bytes.
    os.utime(tmp_path / "a.jpg", (1, 1))
    verify(tmp_path, verifier)
    assert len(decoded) == 2
    os.utime(cut_off(tmp_path / "a.jpg"), (1, 1))
    with pytest.raises(UserError):
        verify(tmp_path, verifier)


def test_ten_thousand_pictures_are_listed_at_once_and_verified_in_the_background(tmp_path, draw_picture):
    first = draw_picture("10_jeff/0000.jpg", 16, 16)
    for number in range(1, 10_000):
        os.link(first, first.with_name(f"{number:04}.jpg"))
    (first.with_name("9998.jpg")).unlink()
    cut_off(draw_picture("10_jeff/9998.jpg", 128, 128))
    verifier = PictureVerifier()
    scan = scan_folder(make_config(tmp_path))
    started = time.monotonic()
    found = verifier.verify(scan, str(tmp_path))
    assert time.monotonic() - started < 2
    assert found.total == 10_000 and 64 <= found.decoded < 10_000 and len(found.scan.samples) == 10_000
    verifier.wait()
    found = verifier.verify(scan, str(tmp_path))
    assert found.decoded == 10_000
    assert [item.path.name for item in found.scan.skipped] == ["9998.jpg"]
