"""Each case of `make`: a sentence where there was a traceback, and the right value where there was a wrong one."""

from __future__ import annotations

import io
import os
import socket
import sys
from pathlib import Path

import pytest
import torch
from PIL import ImageFile

from lib_trainer.cli.main import main
from lib_trainer.cli.recipe import open_recipe
from lib_trainer.config.recipe import Recipe
from lib_trainer.dataset.buckets import bucket_for, cut_share
from lib_trainer.dataset.images import UnreadablePicture, open_picture
from lib_trainer.dataset.scan import scan_folder
from lib_trainer.errors import ConfigError, UserError
from lib_trainer.training.target import free_target
from tests.cases.make import GOOD_LORA, LAYER, MALFORMED_LORAS, half_a_jpeg, json_file, lora, picture

RECIPE = "loha_face_config_8gb"


def scan(folder: Path, **values: object):
    return scan_folder(Recipe().with_values({"train_data_dir": str(folder), **values}).dataset)


def said(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 2) -> str:
    """What a command says on stderr before it ends with this code: a traceback would be an exception."""
    assert main(list(arguments)) == code
    return capsys.readouterr().err


def test_a_name_that_is_too_long_is_said_before_training(tmp_path):
    recipe = Recipe().with_values({"output_name": "1" * 240, "train_data_dir": "x"})
    with pytest.raises(ConfigError) as caught:
        recipe.check()
    assert set(caught.value.problems) == {"output_name"}


def test_half_a_jpeg_beside_a_tagger(tmp_path, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(UnreadablePicture, match="truncated"):
        open_picture(half_a_jpeg(tmp_path / "2_t" / "t.jpg"))


def test_a_word_that_is_never_trained(tmp_path):
    picture(tmp_path / "5_jeff" / "a.png", caption="a man at the beach")
    picture(tmp_path / "plain" / "a.png")
    assert "“zxqjeff” is in no caption" in scan(tmp_path / "5_jeff", trigger_word="zxqjeff").notices[0]
    assert "neither a trigger word nor a caption" in scan(tmp_path / "plain").notices[0]


def test_several_captions_in_a_file(tmp_path):
    picture(tmp_path / "5_jeff" / "a.png", caption="jeff at the beach\njeff, smiling\nphoto of jeff")
    picture(tmp_path / "5_jeff" / "b.png", caption="jeff\nsmile\nhat")
    assert [sample.caption for sample in scan(tmp_path).samples] == ["jeff at the beach", "jeff"]
    assert scan(tmp_path, caption_lines="all").samples[1].caption == "jeff, smile, hat"


def test_our_own_json_with_one_name_of_kohya_leaves_the_text_encoder_alone(tmp_path):
    path = json_file(tmp_path / "typo.json", {
        "learning_rate": 0.001, "text_encoder_lr": 0, "network_dim": 8, "max_train_epochs": 2
    })  # fmt: skip
    assert open_recipe(str(path)).recipe.training.text_encoder_lr == 0


@pytest.mark.parametrize("content", [
    {"name": "x", "version": "1.0.0", "scripts": {}},
    {"sd version": "SD1", "activation text": "x", "preferred weight": 0.8},
    {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["to_k"]},
])  # fmt: skip
def test_json_that_is_no_recipe(tmp_path, content):
    with pytest.raises(UserError, match="is not a recipe"):
        open_recipe(str(json_file(tmp_path / "a.json", content)))


def test_one_bad_value_leaves_the_others(tmp_path):
    path = json_file(tmp_path / "ada.json", {
        "LoRA_type": "LyCORIS/LoHa", "network_dim": 12, "lr_scheduler": "no such", "learning_rate": 1e-4
    })  # fmt: skip
    loaded = open_recipe(str(path))
    assert loaded.recipe.adapter.network_dim == 12 and set(loaded.problems) == {"lr_scheduler"}
    assert loaded.complete({"lr_scheduler": "constant"}, needs_name=False).training.lr_scheduler == "constant"


def test_warm_up_below_one_is_a_share(tmp_path):
    path = json_file(
        tmp_path / "ratio.json", {"LoRA_type": "LyCORIS/LoHa", "learning_rate": 1e-4, "lr_warmup_steps": 0.1}
    )
    assert open_recipe(str(path)).recipe.training.lr_warmup == pytest.approx(10)


@pytest.mark.parametrize("name", MALFORMED_LORAS)
def test_malformed_loras(tmp_path, capsys, name):
    path = lora(tmp_path / f"{name}.safetensors", MALFORMED_LORAS[name])
    assert f"{name}.safetensors holds no" in said(capsys, "inspect", str(path))
    # Beside good layers it is listed, and they are read.
    both = {f"{LAYER}.{key}": value for key, value in MALFORMED_LORAS[name].items()}
    both |= {f"{LAYER.replace('in', 'out')}.{key}": value for key, value in GOOD_LORA.items()}
    both = {key: value.clone() for key, value in both.items()}
    from safetensors.torch import save_file

    save_file(both, path)
    assert main(["inspect", str(path)]) == 0
    assert LAYER in capsys.readouterr().out


def test_a_console_that_cannot_print_a_sign(monkeypatch):
    for encoding, expected in (("cp1251", "768?768"), ("utf-8", "768×768")):
        out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        monkeypatch.setattr(sys, "stdout", out)
        assert main(["plan", RECIPE, "--size", "768"]) == 0
        assert expected in out.buffer.getvalue().decode(encoding)


def test_json_on_such_a_console_keeps_every_letter(monkeypatch, tmp_path):
    out = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr(sys, "stdout", out)
    assert main(["save-recipe", RECIPE, str(tmp_path / "写真.json"), "--json"]) == 0
    assert "\\u5199\\u771f.json" in out.buffer.getvalue().decode("cp1252")


def test_a_numbered_sub_folder(tmp_path):
    for number in range(4):
        picture(tmp_path / "10_jeff" / f"{number}.png")
    picture(tmp_path / "10_jeff" / "512_resized" / "0.png")
    assert {(sample.repeats, sample.image.parent.name) for sample in scan(tmp_path / "10_jeff").samples} == {
        (10, "10_jeff")
    }


def test_a_panorama(tmp_path):
    picture(tmp_path / "5_jeff" / "wide.jpg", 4000, 200)
    config = open_recipe(RECIPE).recipe.dataset
    (sample,) = scan(tmp_path).samples
    size = sample.width_px, sample.height_px
    assert cut_share(*size, bucket_for(*size, config), config) > 0.6


@pytest.mark.parametrize(("arguments", "sentence"), [
    (["--size", "0x0"], "64 to 4096 px"),
    (["--size=-64x64"], "64 to 4096 px"),
    (["--size", "100000x64"], "64 to 4096 px"),
    (["--steps", "0"], "0 sampling steps"),
    (["--lora", ""], "No LoRA is named"),
    (["--strengths", "0:1:1e-999999"], "too many"),
])  # fmt: skip
def test_grid_arguments(tmp_path, capsys, embedded, arguments, sentence):
    lora(
        tmp_path / "models/Lora/good.safetensors",
        {"lora_up.weight": torch.zeros(8, 4), "lora_down.weight": torch.zeros(4, 8)},
    )
    assert sentence in said(capsys, "grid", "--out", str(tmp_path), "--lora", "good", "--prompt", "a", *arguments)


def test_a_lora_of_another_width(tmp_path, capsys, embedded):
    wide = {"lora_up.weight": torch.ones(320, 4), "lora_down.weight": torch.ones(4, 320)}
    lora(tmp_path / "models/Lora/wide.safetensors", wide, "lora_unet_conv_in")
    arguments = ("grid", "--out", str(tmp_path), "--lora", "wide", "--prompt", "a", "--strengths", "1", "--steps", "1")
    assert "does not fit this checkpoint" in said(capsys, *arguments)


@pytest.mark.parametrize("name", ["CON", "con.v2", "nul", "COM1", "lpt9.txt", "AUX", ".", ".hidden", "1" * 300])
def test_names_that_a_system_cannot_keep(name):
    with pytest.raises(ConfigError) as caught:
        Recipe().with_values({"output_name": name, "train_data_dir": "x"}).check()
    assert set(caught.value.problems) == {"output_name"}


@pytest.mark.parametrize("name", ["console", "jeff.con", "COM10", "null", "jeff_person"])
def test_names_that_are_like_those(name):
    Recipe().with_values({"output_name": name, "train_data_dir": "x"}).check()


def test_a_name_that_differs_in_capitals_only(tmp_path):
    (tmp_path / "Jeff.safetensors").touch()
    with pytest.raises(ConfigError, match="differs in capitals only"):
        free_target(tmp_path, Recipe().with_values({"output_name": "jeff", "train_data_dir": "x"}))


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_messages_of_folders(tmp_path):
    picture(tmp_path / "0_off" / "a.png")
    picture(tmp_path / "deep" / "10_jeff" / "sub" / "a.png")
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "a.png").symlink_to(tmp_path / "0_off" / "a.png")
    for folder, sentence in (("0_off", "0 repeats"), ("deep", "one level too deep"), ("links", "copy the pictures")):
        with pytest.raises(UserError, match=sentence):
            scan(tmp_path / folder)


def test_a_port_of_another_program(tmp_path, capsys, embedded):
    pytest.importorskip("gradio")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert f"Port {port} cannot be opened" in said(capsys, "ui", "--port", str(port), "--out", str(tmp_path))


def test_clip_skip_beyond_the_text_encoder(tmp_path, capsys, embedded):
    picture(tmp_path / "5_jeff" / "a.png")
    arguments = ("train", RECIPE, "--data", str(tmp_path / "5_jeff"), "--name", "x", "--out", str(tmp_path / "o"))
    assert "Clip skip 12 leaves nothing" in said(
        capsys, *arguments, "--set", "clip_skip=12", "--set", "max_train_steps=1"
    )


def test_the_home_folder_in_every_path(tmp_path, monkeypatch):
    from lib_trainer.cli.lora import _strong
    from lib_trainer.cli.main import _parser

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    common = ["--out=~/foo", "--checkpoint=~/m.safetensors"]
    options = _parser().parse_args(["train", "x", "--data=~/p", "--name=x", *common])
    assert (options.out, options.checkpoint, options.data) == (
        tmp_path / "foo",
        tmp_path / "m.safetensors",
        tmp_path / "p",
    )
    assert _parser().parse_args(["grid", "--lora=x", "--file=~/g.png", *common]).file == tmp_path / "g.png"
    assert _parser().parse_args(["ui", "--allow=~/a"]).allow == [tmp_path / "a"]
    assert _parser().parse_args(["inspect", "~/l.safetensors"]).file == tmp_path / "l.safetensors"
    for arguments in (
        ("resize", "~/l.st", "~/t.st"),
        ("merge", "~/t.st", "~/l.st:0.5"),
        ("merge-checkpoint", "~/l.st", "~/t.st", "style.st"),
        ("extract", "~/l.st", "b", "~/t.st"),
    ):
        options = _parser().parse_args(["lora", *arguments])
        assert options.target == tmp_path / "t.st"
        assert tmp_path / "l.st" in (
            *vars(options).values(),
            *(_strong(text)[0] for text in getattr(options, "lora", ())),
        )
    assert main(["save-recipe", RECIPE, "~/r.json"]) == 0 and (tmp_path / "r.json").is_file()
    assert open_recipe("~/r.json").recipe.adapter.algo == "loha"


@pytest.mark.skipif(sys.platform != "linux", reason="names are text elsewhere")
def test_a_folder_with_bytes_that_are_no_text(tmp_path, capsys, embedded):
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/5_caf\xe9")
    picture(Path(folder) / "a.png")
    error = said(capsys, "train", RECIPE, "--data", folder, "--name", "x", "--out", str(tmp_path / "o"))
    assert "train_data_dir" in error
