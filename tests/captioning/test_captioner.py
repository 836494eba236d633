"""Captions by a machine: which pictures, what is written, and what is said where weights are missing."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest
from PIL import Image

from lib_trainer.captioning.captioner import CaptionPlan, caption_pictures, compose
from lib_trainer.captioning.onnx_tagger import OnnxTagger, find_taggers, prepared
from lib_trainer.cli.main import main
from lib_trainer.errors import MissingPackage, UserError
from lib_trainer.utils.booru_tags import spelled_out

TAGS = "tag_id,name,category,count\n1,general,9,5\n2,blue_eyes,0,4\n3,rin_(vocaloid),4,3\n4,^_^,0,2\n5,hat,0,1\n"
ENDINGS = (".txt", ".caption")


class Reader:
    """A captioner that says what colour it sees."""

    label = "reader"

    def caption(self, picture, threshold):
        return f"{'red' if picture.getpixel((0, 0))[0] > 128 else 'blue'}, hat, Hat"


@pytest.fixture
def folder(tmp_path):
    for name, color in (("a", "red"), ("b", "blue"), ("c", "red")):
        Image.new("RGB", (32, 32), color).save(tmp_path / f"{name}.png")
    (tmp_path / "c.txt").write_text("typed by a person")
    return tmp_path


@pytest.fixture
def tagger(tmp_path, monkeypatch):
    """A model whose scores do not depend on the picture; what it was given is kept."""
    place = tmp_path / "out/models/wd14"
    place.mkdir(parents=True)
    (place / "model.onnx").write_bytes(b"weights")
    (place / "selected_tags.csv").write_text(TAGS)
    given = []

    class Session:
        def __init__(self, path, providers):
            assert providers == ["CPUExecutionProvider"]

        def get_inputs(self):
            return [types.SimpleNamespace(name="input", shape=["batch", 16, 16, 3])]

        def run(self, _outputs, inputs):
            given.append(inputs["input"])
            return [np.array([[0.99, 0.4, 0.9, 0.36, 0.1]])]

    monkeypatch.setitem(sys.modules, "onnxruntime", types.SimpleNamespace(InferenceSession=Session))
    return place / "model.onnx", given


def images(folder):
    return sorted(folder.glob("*.png"))


def test_only_pictures_without_a_caption_get_one(folder):
    plan = CaptionPlan(prefix="jeff", postfix="photo", excluded="red")
    done = list(caption_pictures(images(folder), ENDINGS, Reader(), plan))
    assert [(item.done, item.total, item.text, item.problem) for item in done] == [
        (1, 3, "jeff, hat, photo", ""), (2, 3, "jeff, blue, hat, photo", ""), (3, 3, "", "it has a caption"),
    ]  # fmt: skip
    assert (folder / "c.txt").read_text() == "typed by a person"
    list(caption_pictures(images(folder), ENDINGS, Reader(), CaptionPlan(only_missing=False)))
    assert (folder / "c.txt").read_text() == "red, hat"
    assert (folder / ".train_lora/originals/c.txt").read_text() == "typed by a person"


def test_a_caption_that_is_typed_meanwhile_stays(folder):
    class Slow(Reader):
        def caption(self, picture, threshold):
            (folder / "a.txt").write_text("typed meanwhile")
            return "red"

    done = list(caption_pictures(images(folder)[:1], ENDINGS, Slow(), CaptionPlan()))
    assert "changed meanwhile" in done[0].problem and (folder / "a.txt").read_text() == "typed meanwhile"


def test_whoever_stops_asking_stops_it(folder):
    events = caption_pictures(images(folder), ENDINGS, Reader(), CaptionPlan())
    next(events)
    events.close()
    assert (folder / "a.txt").exists() and not (folder / "b.txt").exists()


def test_a_sentence_is_put_between_prefix_and_postfix():
    assert compose("a man, smiling in a hat", CaptionPlan("jeff", "photo")) == "jeff, a man, smiling in a hat, photo"


def test_a_tagger_names_what_is_above_the_threshold_and_no_rating(tagger):
    model, given = tagger
    picture = Image.new("RGB", (64, 32), (255, 0, 10))
    assert OnnxTagger(model).caption(picture, 0.35) == r"rin \(vocaloid\), blue eyes, ^_^"
    assert OnnxTagger(model, underscores=True).caption(picture, 0.5) == "rin_(vocaloid)"
    # Padded with white to a square, in BGR.
    assert given[0].shape == (1, 16, 16, 3) and given[0].dtype == np.float32
    assert given[0][0, 0, 0].tolist() == [255, 255, 255] and given[0][0, 8, 8].tolist() == [10, 0, 255]
    assert prepared(picture, ["batch", 3, 16, 16]).max() == 1


def test_what_is_missing_is_one_sentence(tmp_path, tagger, monkeypatch):
    model, _ = tagger
    with pytest.raises(UserError, match=r"needs the file gone\.onnx.*Put it into"):
        OnnxTagger(model.with_name("gone.onnx")).caption(Image.new("RGB", (8, 8)), 0.5)
    with pytest.raises(UserError, match="5 values, and its list has 1 tags"):
        (model.parent / "selected_tags.csv").write_text("name\nhat\n")
        OnnxTagger(model).caption(Image.new("RGB", (8, 8)), 0.5)
    (model.parent / "selected_tags.csv").unlink()
    with pytest.raises(UserError, match=r"model\.csv, which is missing"):
        OnnxTagger(model).caption(Image.new("RGB", (8, 8)), 0.5)
    (model.parent / "selected_tags.csv").write_text(TAGS)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingPackage, match="onnxruntime"):
        OnnxTagger(model).caption(Image.new("RGB", (8, 8)), 0.5)


def test_taggers_are_found_below_models(tmp_path, tagger):
    (tmp_path / "out/models/other.onnx").write_bytes(b"no list of tags")
    assert find_taggers([tmp_path / "out/models", tmp_path / "gone"]) == [tagger[0]]


def test_tags_are_spelled_as_prompts_take_them():
    assert [spelled_out(tag) for tag in ("blue_eyes", "o_o", "rin_(vocaloid)")] == [
        "blue eyes",
        "o_o",
        r"rin \(vocaloid\)",
    ]


def test_the_command_captions_a_folder(folder, tagger, capsys):
    command = ["caption", str(folder), "--out", str(folder / "out"), "--prefix", "jeff", "--exclude", "^_^"]
    assert main(command) == 0
    assert "2 of 3 pictures captioned by wd14" in capsys.readouterr().out
    assert (folder / "a.txt").read_text() == r"jeff, rin \(vocaloid\), blue eyes"
    assert main(["caption", str(folder), "--out", str(folder / "nothing")]) == 2
    assert "There is no tagger" in capsys.readouterr().err


def test_a_tagger_that_ends_in_logits_is_read_as_shares(tagger):
    one = OnnxTagger(tagger[0])
    one._open().run = lambda _outputs, _inputs: [np.array([[0.9, 0.5, -0.2, -4.0, -1.0]])]
    # 1 / (1 + e^-x): 0.62 and 0.45.
    assert one.caption(Image.new("RGB", (8, 8)), 0.4) == r"blue eyes, rin \(vocaloid\)"
