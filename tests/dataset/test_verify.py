import itertools
import os
import threading

import pytest

from lib_trainer.dataset import verify as verify_module
from lib_trainer.dataset.images import UnreadablePicture, open_picture
from lib_trainer.dataset.scan import scan_folder
from lib_trainer.dataset.verify import PictureVerifier
from lib_trainer.errors import UserError
from tests.dataset.tiny import make_config
from tests.waiting import PATIENCE_S


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


def test_a_large_folder_is_listed_at_once_and_verified_in_the_background(tmp_path, draw_picture, monkeypatch):
    first = draw_picture("10_jeff/000.jpg", 16, 16)
    for number in range(1, 300):
        os.link(first, first.with_name(f"{number:03}.jpg"))
    (first.with_name("298.jpg")).unlink()
    cut_off(draw_picture("10_jeff/298.jpg", 128, 128))
    verifier, listed, begun = PictureVerifier(), threading.Event(), itertools.count(1)

    def opened(path):
        # A list that waited for all of them would wait for itself.
        if next(begun) > verify_module.AT_ONCE and not listed.wait(PATIENCE_S):
            listed.set()
        return open_picture(path)

    monkeypatch.setattr(verify_module, "open_picture", opened)
    scan = scan_folder(make_config(tmp_path))
    found = verifier.verify(scan, str(tmp_path))
    assert (found.decoded, found.total, len(found.scan.samples)) == (verify_module.AT_ONCE, 300, 300)
    listed.set()
    verifier.wait()
    found = verifier.verify(scan, str(tmp_path))
    assert found.decoded == 300
    assert [item.path.name for item in found.scan.skipped] == ["298.jpg"]


def test_what_somebody_else_reads_need_not_be_decoded_again(tmp_path, draw_picture):
    draw_picture("a.jpg")
    broken = cut_off(draw_picture("b.jpg"))
    reads = []
    verifier = PictureVerifier(at_once=0, reader=lambda path: reads.append(path.name) or open_picture(path))
    scan = scan_folder(make_config(tmp_path))
    verifier.verify(scan, str(tmp_path), continues=False)
    verifier.wait()
    assert reads == [], "the checks of the folder read them"
    assert verifier.read(tmp_path / "a.jpg").size == open_picture(tmp_path / "a.jpg").size
    with pytest.raises(UnreadablePicture):
        verifier.read(broken)
    found = verifier.verify(scan, str(tmp_path))
    assert (found.decoded, [item.path.name for item in found.scan.skipped], reads) == (2, ["b.jpg"], ["a.jpg", "b.jpg"])
