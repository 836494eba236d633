"""Folders that pages have open: listed, searched, changed and put back."""

from __future__ import annotations

import json
import os
import time
from html import unescape

import pytest

from lib_trainer.dataset.scan import scan_folder
from lib_trainer.errors import NotWritten, UserError
from lib_trainer.events import Progress
from lib_trainer.workbench.commands import read_command
from lib_trainer.workbench.folders import Workbench
from tests.dataset.tiny import make_config
from tests.ui.fakes import FakeHost


@pytest.fixture
def bench(tmp_path, draw_picture):
    for number in range(4):
        draw_picture(f"data/5_jeff/{number}.png", shade=60 * number, caption=f"jeff, tag {number}")
    (tmp_path / "data/5_jeff/3.txt").unlink()
    return Bench(tmp_path)


class Bench:
    """One page's folder."""

    def __init__(self, tmp_path):
        self.folder = tmp_path / "data/5_jeff"
        self.workbench = Workbench(FakeHost(tmp_path))
        self.open()

    def open(self):
        config = make_config(self.folder.parent)
        self.key = self.workbench.open(scan_folder(config), config)
        self.workbench.get(self.key).checking.wait()

    def run(self, **values):
        return self.workbench.commands(self.key).run(values)

    def pictures(self, **how):
        return self.workbench.get(self.key).page(**{"start": 0, "count": 60, **how})["pictures"]

    def captions(self):
        return [
            (self.folder / f"{n}.txt").read_text() if (self.folder / f"{n}.txt").exists() else None for n in range(4)
        ]


def test_pictures_are_listed_in_pages_and_by_tag(bench):
    assert [(p["name"], p["caption"]) for p in bench.pictures(start=1, count=2)] == [
        ("1.png", "jeff, tag 1"), ("2.png", "jeff, tag 2"),
    ]  # fmt: skip
    assert [p["number"] for p in bench.pictures(tag="Tag_2")] == [2]
    assert [p["number"] for p in bench.pictures(numbers=[3, 99, -1])] == [3]
    first = bench.workbench.get(bench.key).tags()[0]
    assert (first["tag"], first["count"]) == ("jeff", 3)


def test_a_bulk_change_is_undone_as_one(bench):
    before = bench.captions()
    answer = bench.run(do="bulk", action="add", text="hat", tag="", numbers=None)
    assert answer["message"] == "4 captions changed." and bench.captions()[0] == "jeff, tag 0, hat"
    assert bench.captions()[3] == "hat"
    (bench.folder / "1.txt").write_text("another program was here")
    answer = bench.run(do="undo")
    assert "3 undone" in answer["message"] and "1.txt was changed meanwhile" in answer["message"]
    assert bench.captions() == [before[0], "another program was here", before[2], None]
    assert bench.run(do="undo")["message"] == "There is nothing to undo."


def test_a_replacement_writes_what_has_the_text_alone(bench):
    answer = bench.run(do="bulk", action="replace", text="tag 1", new="hat", tag="", numbers=None)
    assert (answer["message"], answer["undo"]) == ("1 caption changed.", 1)
    assert bench.captions() == ["jeff, tag 0", "jeff, hat", "jeff, tag 2", None]


def test_a_change_applies_to_what_the_filter_leaves(bench):
    bench.run(do="bulk", action="remove", text="jeff", tag="tag 1", numbers=[0, 1])
    assert bench.captions()[:3] == ["jeff, tag 0", "tag 1", "jeff, tag 2"]


def test_an_exclusion_and_a_crop_are_decided_and_undone(bench):
    bench.run(do="exclude", number=1, excluded=True)
    assert bench.run(do="crop", number=1, crop=[0, 0, 0.5, 1])["changed"][0]["crop"] == (0, 0, 0.5, 1)
    bench.open()
    assert [p["excluded"] for p in bench.pictures()] == [False, True, False, False], "still listed"
    with pytest.raises(UserError, match="too small"):
        bench.run(do="crop", number=1, crop=[0, 0, 0.01, 1])


def test_undo_takes_back_the_last_first(bench):
    bench.run(do="exclude", number=1, excluded=True)
    bench.run(do="crop", number=1, crop=[0, 0, 0.5, 1])
    bench.run(do="undo")
    assert (bench.pictures()[1]["crop"], bench.pictures()[1]["excluded"]) == (None, True)
    bench.run(do="undo")
    assert not bench.pictures()[1]["excluded"]


def test_a_hundred_changes_can_be_undone(bench, monkeypatch):
    monkeypatch.setattr("lib_trainer.workbench.commands._MOST_UNDONE", 3)
    for number in (0, 1, 2, 3):
        counted = bench.run(do="exclude", number=number, excluded=True)["undo"]
    assert counted == 3
    assert [bench.run(do="undo")["message"] for _ in range(4)][2:] == ["1 undone.", "There is nothing to undo."]
    assert [picture["excluded"] for picture in bench.pictures()] == [True, False, False, False]


def test_a_conflict_brings_the_other_text_along(bench):
    version = bench.pictures()[0]["version"]
    (bench.folder / "0.txt").write_text("theirs")
    answer = bench.run(do="caption", number=0, text="mine", version=version)
    assert answer["conflict"]["caption"] == "theirs" and bench.captions()[0] == "theirs"
    bench.run(do="caption", number=0, text="mine", version=answer["conflict"]["version"])
    assert bench.captions()[0] == "mine"


@pytest.mark.parametrize(
    "values",
    [
        {"do": "format c:"}, {},
        {"do": "caption", "number": 99, "text": "", "version": ""}, {"do": "exclude", "number": "0"},
        {"do": "caption", "number": 0, "text": None, "version": ""}, {"do": "crop", "number": True, "crop": None},
        {"do": "crop", "number": 0, "crop": "abcd"}, {"do": "bulk", "action": "add", "text": "x", "numbers": "all"},
        {"do": "bulk", "action": "__class__"},
    ],
)  # fmt: skip
def test_what_a_browser_may_send_instead_is_refused(bench, values):
    before = bench.captions()
    with pytest.raises(UserError):
        bench.run(**values)
    assert bench.captions() == before


def test_commands_are_read_with_limits():
    assert read_command('{"do": "undo"}') == {"do": "undo"}
    for text in ("", "[]", "[" * 100_000, '{"do": "caption", "text": "' + "x" * 2**20 + '"}'):
        with pytest.raises(UserError):
            read_command(text)


def test_a_read_only_folder_is_said_and_can_still_be_looked_at(bench, monkeypatch):
    monkeypatch.setattr(os, "replace", lambda *_paths: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    monkeypatch.setattr("lib_trainer.utils.atomic_file.HELD_SECONDS", 0)
    with pytest.raises(NotWritten, match="Permission denied"):
        bench.run(do="exclude", number=0, excluded=True)
    answer = bench.run(do="bulk", action="add", text="hat", numbers=[0])
    assert answer["message"].startswith("0 captions changed. ") and bench.captions()[0] == "jeff, tag 0"
    assert len(bench.pictures()) == 4


def test_thumbnails_and_findings_are_read_by_the_key_alone(bench):
    folder = bench.workbench.get(bench.key)
    assert folder.thumbnail(2)[:2] == b"\xff\xd8"
    found = folder.checking.describe()
    assert found["ended"] and found["done"] == 4
    assert {"kind", "severity", "sentence", "pictures"} == set(found["findings"][0])
    with pytest.raises(UserError, match="not open"):
        bench.workbench.get("guess")


def test_ten_thousand_pictures_are_listed_at_once(tmp_path, draw_picture):
    first = draw_picture("data/0.jpg", 64, 64, caption="jeff, hat")
    for number in range(1, 10_000):
        os.link(first, first.with_name(f"{number}.jpg"))
        os.link(first.with_suffix(".txt"), first.with_name(f"{number}.txt"))
    config = make_config(first.parent)
    scan = scan_folder(config)
    workbench = Workbench(FakeHost(tmp_path))
    started = time.process_time()
    key = workbench.open(scan, config)
    folder = workbench.get(key)
    folder.close()
    assert len(folder.page(0, 60)["pictures"]) == 60
    folder.checking.wait()
    assert time.process_time() - started < 2


class Reader:
    """A captioner that needs its weights from the third picture on."""

    label = "reader"
    broken = False

    def caption(self, picture, threshold):
        if self.broken:
            raise UserError("reader needs the file weights.pt, which is missing.", "Put it into models.")
        return "hat, smile"


def auto(bench, **values):
    command = {"do": "auto", "captioner": "reader", "threshold": 0.5, "prefix": "jeff", "exclude": "smile"}
    bench.run(**{**command, **values})
    commands = bench.workbench.commands(bench.key)
    commands.auto.wait()
    return commands.auto.state


def test_captions_are_made_for_pictures_without_one_and_undone_as_one(bench, monkeypatch):
    monkeypatch.setattr(FakeHost, "captioners", lambda _host: [Reader()])
    before = bench.captions()
    state = auto(bench)
    assert (state.running, state.done, state.total, state.written) == (False, 4, 4, 1)
    assert bench.captions() == [*before[:3], "jeff, hat"]
    state = auto(bench, only_missing=False)
    assert state.message == "4 captioned by reader." and bench.captions() == ["jeff, hat"] * 4
    assert "4 undone" in bench.run(do="undo")["message"]
    bench.run(do="undo")
    assert bench.captions() == before


def test_pictures_that_are_left_out_get_no_captions(bench, monkeypatch):
    monkeypatch.setattr(FakeHost, "captioners", lambda _host: [Reader()])
    bench.run(do="exclude", number=3, excluded=True)
    before = bench.captions()
    assert (auto(bench).total, bench.captions()) == (3, before)


def test_missing_weights_and_wrong_wishes_are_one_sentence(bench, monkeypatch):
    monkeypatch.setattr(FakeHost, "captioners", lambda _host: [Reader()])
    monkeypatch.setattr(Reader, "broken", True)
    assert auto(bench).message == "reader needs the file weights.pt, which is missing. Put it into models."
    for wrong in ({"captioner": "nobody"}, {"threshold": "0.5"}, {"threshold": 7}):
        with pytest.raises(UserError):
            auto(bench, **wrong)


def test_tokens_are_counted_by_the_host(bench):
    assert [picture["tokens"] for picture in bench.pictures()] == [4, 4, 4, None]
    (bench.folder / "1.txt").write_text("short\n" + " ".join(f"w{number}" for number in range(200)))
    assert bench.pictures()[1]["tokens"] == 200 and bench.pictures()[1]["chunks"] == ["w75", "w150"]


class Finder:
    """A face at the left edge of every picture."""

    def boxes(self, grey):
        return [(0.0, 0.2, 0.1, 0.4)]


def test_faces_are_kept_where_a_bucket_would_cut_them(bench, draw_picture, monkeypatch):
    monkeypatch.setattr("lib_trainer.workbench.commands.face_finder", lambda: None)
    with pytest.raises(UserError, match="OpenCV"):
        bench.run(do="faces")
    monkeypatch.setattr("lib_trainer.workbench.commands.face_finder", Finder)
    draw_picture("data/5_jeff/0.png", 400, 128)
    config = make_config(bench.folder.parent, enable_bucket=False)
    bench.key = bench.workbench.open(scan_folder(config), config)
    assert "1 cropped" in bench.run(do="faces")["message"]
    (left, _, right, _) = bench.pictures()[0]["crop"]
    assert (left, right) == pytest.approx((0, 0.32)) and bench.pictures()[1]["crop"] is None
    bench.run(do="undo")
    assert bench.pictures()[0]["crop"] is None


def test_a_folder_is_marked_as_regularisation_and_back(bench, draw_picture):
    draw_picture("data/1_man/a.png")
    bench.open()
    for on in (True, False):
        bench.run(do="regularise", folder="1_man", on=on)
        marked = {s.image.parent.name for s in scan_folder(make_config(bench.folder.parent)).samples if s.regularising}
        assert marked == ({"1_man"} if on else set())
    with pytest.raises(UserError, match="no such folder"):
        bench.run(do="regularise", folder="../elsewhere", on=True)


def test_a_comparison_under_way_is_told_and_can_be_stopped(bench, monkeypatch):
    folder = bench.workbench.get(bench.key)
    assert (folder.checking.describe()["phase"], folder.checking.describe()["ended"]) == ("comparing", True)
    scan, config = scan_folder(make_config(bench.folder.parent)), make_config(bench.folder.parent)
    seen = []

    def compare(pictures):
        while True:
            seen.append(len(pictures))
            yield Progress("comparing", 1, 4)

    monkeypatch.setattr("lib_trainer.dataset.checks.check_folder.check_duplicates", compare)
    folder = bench.workbench.get(bench.workbench.open(scan, config))
    while not seen:
        time.sleep(0.01)
    folder.close()
    folder.checking.wait()
    assert folder.checking.describe()["ended"]


def test_a_hostile_caption_comes_back_to_the_page_as_text(bench):
    pytest.importorskip("gradio")
    from lib_trainer.ui.workbench_panel import WorkbenchActions

    hostile = "jeff, \"'><img src=x onerror=alert(1)>"
    command = {"do": "caption", "key": bench.key, "number": 0, "text": hostile, "id": "<b>1"}
    command["version"] = bench.pictures()[0]["version"]
    answer = WorkbenchActions(bench.workbench).run(json.dumps(command))
    assert "<img" not in answer and "<b>" not in answer and answer.count('"') == 2
    said = json.loads(unescape(answer.split('"')[1]))
    assert said["changed"][0]["caption"] == hostile == bench.captions()[0]
    assert "<i>" not in WorkbenchActions(bench.workbench).run('{"do": "caption", "key": "<i>"}')
