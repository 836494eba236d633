import os
import sys
import zlib

import pytest
from PIL import Image, ImageFile

from lib_trainer.dataset.images import NO_PICTURE
from lib_trainer.dataset.scan import scan_folder
from lib_trainer.errors import UserError
from tests.dataset.tiny import make_config


def scan(folder, **values):
    return scan_folder(make_config(folder, **values))


def reasons(result):
    return {item.path.name: item.reason for item in result.skipped}


def test_numbered_folders_repeat_and_name_their_pictures(tmp_path, draw_picture):
    draw_picture("10_jeff_person/b.png", 128, 64)
    draw_picture("10_jeff_person/a.jpg", caption="jeff_person, smile")
    draw_picture("3_jeff_person outdoors/c.webp")
    result = scan(tmp_path)
    assert [(s.image.name, s.repeats, s.caption, s.captioned) for s in result.samples] == [
        ("a.jpg", 10, "jeff_person, smile", True),
        ("b.png", 10, "jeff_person", False),
        ("c.webp", 3, "jeff_person outdoors", False),
    ]
    assert (result.samples[1].width_px, result.samples[1].height_px) == (128, 64)
    assert result.trigger_word == "jeff_person"
    assert result.skipped == ()


def test_the_configured_word_stands_in_for_missing_captions(tmp_path, draw_picture):
    draw_picture("10_jeff/a.png")
    draw_picture("10_jeff/b.png", caption=" ")
    result = scan(tmp_path, trigger_word="zxc person")
    assert [(s.caption, s.captioned) for s in result.samples] == [("zxc person", False)] * 2
    assert result.trigger_word == "zxc person"


def test_a_plain_folder_and_a_numbered_folder_itself_work(tmp_path, draw_picture):
    draw_picture("flat/a.png")
    draw_picture("sets/30_style_name/a.png")
    assert [(s.repeats, s.caption) for s in scan(tmp_path / "flat").samples] == [(1, "")]
    named = scan(f' "{tmp_path / "sets/30_style_name"}" ')
    assert [(s.repeats, s.caption) for s in named.samples] == [(30, "style_name")]


def test_endings_are_read_in_any_letter_case(tmp_path, draw_picture):
    names = ["a.JPG", "b.Jpeg", "c.PNG", "d.WebP", "e.BMP", "f.jfif", "g.GIF", "h.tif", "i.TIFF"]
    for name in names:
        draw_picture(name)
    (tmp_path / "a.TXT").write_text("a caption")
    result = scan(tmp_path)
    assert [s.image.name for s in result.samples] == names
    assert result.samples[0].caption == "a caption"


def test_caption_files_are_taken_in_order_of_their_endings(tmp_path, draw_picture):
    draw_picture("a.png", caption="text")
    (tmp_path / "a.caption").write_text("caption")
    (tmp_path / "a.tags").write_text("tags")
    assert scan(tmp_path).samples[0].caption == "text"
    assert scan(tmp_path, caption_extension=".tags").samples[0].caption == "tags"
    (tmp_path / "a.txt").unlink()
    assert scan(tmp_path).samples[0].caption == "caption"


def test_a_broken_caption_is_named_and_its_picture_still_used(tmp_path, draw_picture):
    draw_picture("5_jeff/a.png")
    (tmp_path / "5_jeff/a.txt").write_bytes(b"\xff\xff\xe9")
    result = scan(tmp_path)
    assert result.samples[0].caption == "jeff"
    assert "not Unicode" in reasons(result)["a.txt"]


def test_a_word_that_no_caption_holds_is_said(tmp_path, draw_picture):
    draw_picture("5_jeff/a.png", caption="a man at the beach")
    draw_picture("5_jeff/b.png", caption="jeffrey smiles")
    (said,) = scan(tmp_path).notices
    assert "“jeff” is in no caption" in said and "Trigger word in every caption" in said
    (tmp_path / "5_jeff/a.txt").write_text("Jeff at the beach")
    assert scan(tmp_path).notices == ()
    (said,) = scan(tmp_path, trigger_word="zxq jeff").notices
    assert "“zxq jeff”" in said
    # A picture without a caption is trained with the word.
    (tmp_path / "5_jeff/a.txt").unlink()
    assert scan(tmp_path).notices == ()


def test_neither_word_nor_caption_is_said(tmp_path, draw_picture):
    draw_picture("plain/a.png")
    (said,) = scan(tmp_path / "plain").notices
    assert "neither a trigger word nor a caption" in said
    (tmp_path / "plain/a.txt").write_text("a man")
    assert scan(tmp_path / "plain").notices == ()


def test_the_word_is_put_into_every_caption_of_a_run(tmp_path, draw_picture):
    draw_picture("5_jeff/a.png", caption="a man, smile")
    draw_picture("5_jeff/b.png")
    draw_picture("5_jeff/c.png", caption="hat, jeff")
    result = scan(tmp_path, trigger_word_first=True)
    assert [sample.caption for sample in result.samples] == ["jeff, a man, smile", "jeff", "jeff, hat"]
    assert result.notices == ()
    assert (tmp_path / "5_jeff/a.txt").read_text() == "a man, smile"


def test_files_of_several_lines_are_said_unless_it_was_chosen(tmp_path, draw_picture):
    draw_picture("5_jeff/a.png", caption="jeff\nsmile\nhat")
    first, chosen = scan(tmp_path), scan(tmp_path, caption_lines="random")
    assert first.samples[0].captions == ("jeff",)
    assert "1 caption file has several lines" in first.notices[0]
    assert chosen.samples[0].captions == ("jeff", "smile", "hat") and chosen.notices == ()
    assert scan(tmp_path, caption_lines="all").samples[0].captions == ("jeff, smile, hat",)


def test_sizes_are_as_seen(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("a.jpg", "b.png", "c.webp"):
        Image.new("RGB", (64, 32)).save(tmp_path / name, exif=exif)
    assert [(s.width_px, s.height_px) for s in scan(tmp_path).samples] == [(32, 64)] * 3


def test_what_is_no_picture_is_named_skipped_and_counted(tmp_path, draw_picture):
    good = draw_picture("good.png")
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.jpg").write_text("not a picture")
    (tmp_path / "cut.png").write_bytes(good.read_bytes()[:20])
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "layers.psd").write_bytes(b"8BPS")
    (tmp_path / "bomb.png").write_bytes(_png_header(60_000, 60_000))
    Image.new("RGB", (9, 9)).save(tmp_path / "named.jpg", "PPM")
    (tmp_path / ".hidden.png").touch()
    (tmp_path / "notes.md").touch()
    result = scan(tmp_path)
    assert [s.image.name for s in result.samples] == ["good.png"]
    found = reasons(result)
    assert set(found) == {
        "empty.png", "text.jpg", "cut.png", "folder.png", "layers.psd", "bomb.png", "named.jpg"
    }  # fmt: skip
    assert found["empty.png"] == "the file is empty"
    assert found["folder.png"] == "a folder, not a file"
    assert "pixels" in found["bomb.png"]
    assert found["named.jpg"] == found["text.jpg"] == NO_PICTURE


@pytest.mark.skipif(sys.platform == "win32", reason="links and pipes need rights there")
def test_links_are_followed_within_the_folder_only(tmp_path, draw_picture):
    secret = draw_picture("elsewhere/secret.png", caption="a secret")
    draw_picture("data/5_jeff/a.png")
    data = tmp_path / "data"
    (data / "5_jeff/b.png").symlink_to(data / "5_jeff/a.png")
    (data / "5_jeff/c.png").symlink_to(secret)
    (data / "5_jeff/a.txt").symlink_to(secret.with_suffix(".txt"))
    (data / "5_jeff/d.png").symlink_to(data / "5_jeff/d.png")
    (data / "5_more").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(data / "5_jeff/pipe.png")
    result = scan(data)
    assert [(s.image.name, s.caption) for s in result.samples] == [("a.png", "jeff"), ("b.png", "jeff")]
    assert set(reasons(result)) == {"c.png", "a.txt", "d.png", "5_more", "pipe.png"}


def test_what_lies_beside_numbered_folders_is_named(tmp_path, draw_picture):
    draw_picture("10_jeff/a.png")
    draw_picture("unnumbered/b.png")
    draw_picture("0_off/c.png")
    draw_picture("loose.png")
    (tmp_path / "log").mkdir()
    result = scan(tmp_path)
    assert [s.image.name for s in result.samples] == ["a.png"]
    assert set(reasons(result)) == {"unnumbered", "0_off", tmp_path.name}
    assert "(1 found)" in reasons(result)[tmp_path.name]


def test_a_numbered_sub_folder_does_not_hide_the_pictures_beside_it(tmp_path, draw_picture):
    draw_picture("sets/10_jeff/a.png")
    draw_picture("sets/10_jeff/512_resized/b.png")
    result = scan(tmp_path / "sets/10_jeff")
    assert [(s.image.name, s.repeats) for s in result.samples] == [("a.png", 10)]
    assert "move it beside" in reasons(result)["512_resized"]
    # Without pictures of its own a numbered folder may be named like a set of sets.
    (tmp_path / "sets/10_jeff/a.png").unlink()
    assert [(s.image.name, s.repeats) for s in scan(tmp_path / "sets/10_jeff").samples] == [("b.png", 512)]


def test_no_repeats_are_the_reason_where_no_picture_is_left(tmp_path, draw_picture):
    draw_picture("0_off/a.png")
    for folder in (tmp_path, tmp_path / "0_off"):
        with pytest.raises(UserError, match="0_off asks for 0 repeats") as caught:
            scan(folder)
        assert "10_name" in caught.value.hint


def test_pictures_one_level_too_deep_are_found(tmp_path, draw_picture):
    draw_picture("10_jeff/sub/a.png")
    with pytest.raises(UserError, match="no pictures") as caught:
        scan(tmp_path)
    assert "one level too deep" in caught.value.hint and str(tmp_path / "10_jeff" / "sub") in caught.value.hint
    draw_picture("album/holiday/day/b.png")
    with pytest.raises(UserError, match="no pictures") as caught:
        scan(tmp_path / "album")
    assert caught.value.hint == f"Name the folder {tmp_path / 'album/holiday/day'} instead."


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_links_that_lead_outside_are_to_be_copied(tmp_path, draw_picture):
    outside = draw_picture("elsewhere/a.png")
    (tmp_path / "links").mkdir()
    (tmp_path / "links/a.png").symlink_to(outside)
    with pytest.raises(UserError, match="a link that leads out") as caught:
        scan(tmp_path / "links")
    assert "copy the pictures" in caught.value.hint and "png or jpg" not in caught.value.hint


def test_a_date_is_not_taken_for_repeats(tmp_path, draw_picture):
    draw_picture("20240315_holiday/a.png")
    with pytest.raises(UserError, match="20240315 repeats") as caught:
        scan(tmp_path)
    assert "10_name" in caught.value.hint


def test_errors_say_what_is_missing_what_is_there_and_what_to_do(tmp_path, draw_picture):
    with pytest.raises(UserError, match="No folder") as caught:
        scan("")
    draw_picture("project/img/10_jeff/a.png")
    with pytest.raises(UserError, match="does not exist") as caught:
        scan(tmp_path / "projekt")
    assert "project" in caught.value.hint
    with pytest.raises(UserError, match="a file, not a folder"):
        scan(tmp_path / "project/img/10_jeff/a.png")
    with pytest.raises(UserError, match=r"no pictures.*it holds the folder img") as caught:
        scan(tmp_path / "project")
    assert str(tmp_path / "project/img") in caught.value.hint
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds nothing") as caught:
        scan(tmp_path / "empty")
    assert "10_jeff_person" in caught.value.hint
    (tmp_path / "empty/a.png").write_text("no")
    with pytest.raises(UserError, match=r"None of the pictures.*a\.png: it is not"):
        scan(tmp_path / "empty")
    with pytest.raises(UserError, match=r"does not exist|cannot be opened"):
        scan("x" * 5000)


def test_ten_thousand_pictures_are_scanned_by_their_headers(tmp_path, draw_picture, monkeypatch):
    first = draw_picture("10_jeff/0.jpg", 2000, 1500, caption="jeff")
    for number in range(1, 10_000):
        os.link(first, first.with_name(f"{number}.jpg"))
        if number % 2:
            os.link(first.with_suffix(".txt"), first.with_name(f"{number}.txt"))
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _picture: pytest.fail("a picture is decoded"))
    result = scan(tmp_path)
    assert len(result.samples) == 10_000
    assert sum(sample.captioned for sample in result.samples) == 5_001


def _png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return len(data).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")

    size = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size + b"\x08\x02\0\0\0") + chunk(b"IDAT", zlib.compress(b"\0" * 99))


def test_words_in_brackets_stand_for_the_trigger_word_and_the_folder(tmp_path, draw_picture):
    draw_picture("10_jeff person/a.png", caption="[trigger], [folder] in a hat, [other]")
    assert scan(tmp_path).samples[0].caption == "jeff person, jeff person in a hat, [other]"
    assert scan(tmp_path, trigger_word="zxc").samples[0].caption == "zxc, jeff person in a hat, [other]"
