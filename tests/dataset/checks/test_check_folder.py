"""The checks on folders that are drawn here. `python -m benchmarks checks` measures their rates on larger ones."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
from PIL import Image

from benchmarks.checks.distortions import COPIES, IN_PLACE
from benchmarks.checks.photographs import photograph
from lib_trainer.dataset.checks.check_folder import check_folder
from lib_trainer.dataset.checks.count import check_count
from lib_trainer.dataset.checks.duplicates import check_duplicates
from lib_trainer.dataset.checks.finding import Finding, named
from lib_trainer.dataset.checks.measure import measure
from lib_trainer.dataset.checks.pictures import Pictures
from lib_trainer.dataset.checks.size import check_size
from lib_trainer.dataset.samples import Sample
from lib_trainer.dataset.scan import scan_folder
from lib_trainer.dataset.thumbnails import Thumbnails
from lib_trainer.events import Progress
from tests.dataset.tiny import make_config

SIDE_PX = 320
PIXEL_KINDS = ("duplicate", "blur", "bright", "dark", "grey", "background", "palette", "framing", "unreadable")


def look(folder, kind="", **values):
    config = make_config(folder, **values)
    return list(check_folder(scan_folder(config), config, kind))


def found(events, kind):
    return [{path.name for path in item.pictures} for item in events if isinstance(item, Finding) and item.kind == kind]


@pytest.fixture(scope="module")
def photographs():
    return [photograph(f"test {number}", SIDE_PX, SIDE_PX) for number in range(20)]


@pytest.fixture(scope="module")
def spoiled(photographs, tmp_path_factory):
    """16 clean pictures, and of four more each distortion once."""
    folder, rng = tmp_path_factory.mktemp("spoiled"), Random("spoiled")
    for number, picture in enumerate(photographs[:16]):
        picture.save(folder / f"{number:02}.png")
    for kind, picture in zip(("blur", "bright", "dark", "grey"), photographs[16:], strict=True):
        IN_PLACE[kind](picture, rng).save(folder / f"{kind}.png")
    for number, (name, distort) in enumerate(COPIES.items()):
        distort(photographs[number + 4], rng).save(folder / f"{name}.png")
    return folder, look(folder)


@pytest.mark.parametrize("kind", ["blur", "bright", "dark", "grey"])
def test_a_spoiled_picture_is_found_among_clean_ones(spoiled, kind):
    assert found(spoiled[1], kind) == [{f"{kind}.png"}]


def test_copies_are_found_with_what_they_were_made_from(spoiled):
    assert sorted(map(sorted, found(spoiled[1], "duplicate"))) == sorted(
        [f"{number + 4:02}.png", f"{name}.png"] for number, name in enumerate(COPIES)
    )


def test_a_clean_folder_is_not_marked(photographs, tmp_path):
    for number, picture in enumerate(photographs):
        picture.save(tmp_path / f"{number}.png")
    assert [kind for kind in PIXEL_KINDS if found(look(tmp_path), kind)] == []


def test_names_and_sizes_are_said_before_pixels_are_read(tmp_path, draw_picture):
    draw_picture("5_jeff/a.png", 200, 200, caption="a man, smile")
    draw_picture("5_jeff/b.png", 900, 1000)
    draw_picture("5_jeff/c.png", 900, 1000, caption="jeff, smile")
    events = look(tmp_path, "face", resolution_px=(256, 256), min_bucket_reso=256)
    first = next(place for place, event in enumerate(events) if isinstance(event, Progress))
    said = {item.kind: item for item in events[:first]}
    assert found(events, "small") == [{"a.png"}] and found(events, "enlarged") == [{"a.png"}]
    assert "enlarged 1.3 times at most" in said["enlarged"].sentence
    assert "10 to 20" in said["count"].sentence and "1 without a caption" in said["caption"].sentence
    assert found(events, "trigger") == [{"a.png"}]
    # Where no caption has the word the scan says so itself, once.
    assert found(look(tmp_path, trigger_word="anna"), "trigger") == []


def test_a_set_in_black_and_white_is_meant_to_be_one(photographs, tmp_path):
    for number, picture in enumerate(photographs[:6]):
        picture.convert("L" if number < 4 else "RGB").save(tmp_path / f"{number}.png")
    assert found(look(tmp_path), "grey") == []


def test_what_a_bucket_crops_away_is_said(tmp_path, draw_picture):
    draw_picture("a.png", 1600, 800)
    assert found(look(tmp_path, resolution_px=(512, 512), enable_bucket=False), "cropped") == [{"a.png"}]
    assert found(look(tmp_path, resolution_px=(512, 512)), "cropped") == []


def test_the_borders_of_small_and_cropped(tmp_path):
    config = make_config(tmp_path, resolution_px=(512, 512), enable_bucket=False)
    sizes = {"767": (767, 900), "768": (900, 768), "15 %": (1000, 850), "25 %": (1000, 750)}
    samples = [Sample(tmp_path / name, "", 1, *size, False) for name, size in sizes.items()]
    events = check_size(samples, config)
    assert found(events, "small") == [{"767", "25 %"}] and found(events, "cropped") == [{"25 %"}]
    assert events[-1].sentence == "25 %: 25% at most is cropped away at 512×512 px."


def test_a_white_page_has_lost_everything():
    assert measure(Image.new("RGB", (64, 64), "white"), None, with_parts=False).clipped == 1


def test_one_background_is_said_and_different_ones_are_not(tmp_path):
    rng = Random("backgrounds")
    for number in range(10):
        picture = Image.new("RGB", (200, 200), (90, 120, 160) if number < 8 else (20 * number, 40, 60))
        picture.paste(photograph(f"subject {number}", 100, 100), (50 + rng.randint(-8, 8), 80))
        picture.save(tmp_path / f"{number}.png")
    events = look(tmp_path, "style")
    assert found(events, "background") == [{f"{number}.png" for number in range(8)}]
    assert (
        "8 of 10 have the same background" in next(i for i in events if getattr(i, "kind", "") == "background").sentence
    )


def test_one_palette_is_said_for_a_face_and_meant_for_a_style(tmp_path):
    for number in range(8):
        noise = np.random.default_rng(number).integers(0, 40, (100, 100, 1))
        Image.fromarray((noise + np.array([150, 90, 30])).astype(np.uint8)).save(tmp_path / f"{number}.png")
    assert found(look(tmp_path, "face"), "palette") and not found(look(tmp_path, "style"), "palette")


class Faces:
    """Every picture shows a face of this share of its area."""

    def __init__(self, share):
        self.share = share

    def shares(self, grey):
        return (self.share,)


@pytest.mark.parametrize(
    ("share", "name"), [(0.4, "close-ups"), (0.1, "head-and-shoulders"), (0.01, "from a distance")]
)
def test_one_framing_is_said(tmp_path, photographs, monkeypatch, share, name):
    monkeypatch.setattr("lib_trainer.dataset.checks.check_folder.face_finder", lambda: Faces(share))
    for number, picture in enumerate(photographs[:6]):
        picture.resize((100, 100)).save(tmp_path / f"{number}.png")
    said = [item.sentence for item in look(tmp_path) if getattr(item, "kind", "") == "framing"]
    assert len(said) == 1 and name in said[0] and "6 of 6" in said[0]


def test_a_picture_that_cannot_be_decoded_is_named_and_the_others_checked(tmp_path, photographs):
    photographs[0].save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    (tmp_path / "b.png").write_bytes(data[: len(data) // 2])
    assert found(look(tmp_path), "unreadable") == [{"b.png"}]


def gathered(all_measured):
    pictures = Pictures()
    for number, measured in enumerate(all_measured):
        pictures.add(Sample(Path(f"{number}.png"), "", 1, 9, 9, False), measured)
    return pictures


def duplicates_in(pictures):
    return [item for item in check_duplicates(pictures) if isinstance(item, Finding)]


def unlike(one, rng):
    """A picture of random pixels."""
    hashes = rng.integers(0, 256, (8, 8)).astype(np.uint8)
    return replace(one, hashes=hashes, small=rng.integers(0, 255, (40, 40, 3)).astype(np.uint8))


def test_a_large_folder_is_compared_by_its_whole_pictures(photographs):
    one = measure(photographs[0], None, with_parts=False)
    rng = np.random.default_rng(1)
    pictures = gathered(one if number % 250 == 5 else unlike(one, rng) for number in range(600))
    assert [sorted(path.stem for path in item.pictures) for item in duplicates_in(pictures)] == [["255", "5", "505"]]


def test_a_list_of_names_stays_short(tmp_path):
    paths = [tmp_path / f"{letter}.png" for letter in "abcdef"]
    assert named(paths[:1]) == "a.png" and named(paths[:3]) == "a.png, b.png and c.png"
    assert named(paths) == "a.png, b.png, c.png and 3 more"


def test_thumbnails_are_kept_and_follow_the_picture(tmp_path, photographs):
    photographs[0].save(tmp_path / "a.png")
    thumbnails = Thumbnails(tmp_path / "cache", 64)
    first = thumbnails.jpeg(tmp_path / "a.png")
    (kept,) = (tmp_path / "cache").glob("*/*.jpg")
    kept.write_bytes(b"kept")
    assert thumbnails.jpeg(tmp_path / "a.png") == b"kept", "the copy is read, not made again"
    photographs[1].save(tmp_path / "a.png")
    assert thumbnails.jpeg(tmp_path / "a.png") not in (b"kept", first)
    assert max(thumbnails.read(tmp_path / "a.png").size) == 64
    thumbnails.prune(unused_days=-1)
    assert not list((tmp_path / "cache").glob("*/*.jpg"))


def test_a_film_of_one_picture_is_one_group_in_little_memory(photographs):
    one = measure(photographs[0], None, with_parts=False)
    pictures = gathered([one] * 500)
    tracemalloc.start()
    (group,) = duplicates_in(pictures)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # All 250,000 pairs would take 60 MB.
    assert len(group.pictures) == 500 and peak_bytes < 2**24


@pytest.mark.parametrize(("pictures", "severities"), [(9, ["warning"]), (10, []), (40, []), (41, ["note"])])
def test_more_pictures_than_usual_are_said_where_they_are_many(pictures, severities):
    assert [finding.severity for finding in check_count(pictures, "face")] == severities
    assert check_count(pictures, "") == []
