"""How a command ends: exit codes, one sentence for a mistake, one JSON object for a program."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lib_trainer.adapter.io import read_metadata
from lib_trainer.cli import main as cli
from lib_trainer.cli.main import main
from lib_trainer.cli.output import Answer

SMALL = ["--set", "network_dim=2", "--set", "conv_dim=2", "--set", "optimizer=AdamW", "--set", "max_train_steps=2"]
SMALL += ["--set", "sample_prompts=jeff, a hat --s 1"]


def train(pictures, out, *more: str) -> list[str]:
    recipe = "loha_face_config_8gb"
    return ["train", recipe, "--data", str(pictures), "--name", "jeff", "--out", str(out), *SMALL, *more]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "no_such_recipe", "--data", "x", "--name", "n"], "no_such_recipe"),
        (["train", "lokr_style_config_8gb", "--data", "nowhere", "--name", "n"], "nowhere"),
        (["train", "lokr_style_config_8gb", "--data", "x", "--name", "a:b"], "<lora:NAME:0.8>"),
        (["train", "lokr_style_config_8gb", "--data", "x", "--name", "n", "--set", "epoch"], "--set key=value"),
        (
            ["train", "lokr_style_config_8gb", "--data", "x", "--name", "n", "--set", "epohc=3"],
            "epohc: there is no such",
        ),
        (["train", "lokr_style_config_8gb", "--data", "x"], "--name"),
        (["train", "lokr_style_config_8gb", "--name", "n"], "name the folder that holds the pictures"),
        (["train", "slider_config_8gb", "--name", "n"], "a slider needs a prompt to come from"),
        (["grid", "--lora", "nobody", "--prompt", "p"], "no LoRA named nobody"),
        (["grid", "--lora", "x", "--prompt", "p", "--strengths", "0,strong"], "'strong' is not a strength"),
        (["grid", "--lora", "x", "--prompt", "p", "--with", "y"], "--with"),
        (["grid", "--lora", "x", "--prompt", "p", "--size", "large"], "'large' in --size"),
        (["grid", "--lora", "x", "--prompt", "p", "--checkpoint", "nowhere.safetensors"], "nowhere.safetensors"),
        (["inspect", "nowhere.safetensors"], "nowhere.safetensors cannot be read"),
        (["resume"], "There is no run to resume"),
        (["dance"], "dance"),
        ([], "COMMAND"),
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_a_mistake_is_one_sentence_and_exit_code_2(arguments, said, as_json, embedded, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([*arguments, "--json"] if as_json else arguments) == 2
    shown = capsys.readouterr()
    sentence = shown.err.strip().splitlines()[-1]
    assert said in sentence
    assert "Traceback" not in shown.err
    if as_json:
        assert json.loads(shown.out)["error"] in sentence
    else:
        assert shown.out == ""


def test_what_is_no_mistake_keeps_its_traceback(monkeypatch):
    def broken(_given):
        raise ZeroDivisionError

    monkeypatch.setattr(cli, "_run_inspect", broken)
    with pytest.raises(ZeroDivisionError):
        main(["inspect", "x"])


def test_only_the_answer_stands_on_stdout(monkeypatch, capsys):
    import sys

    def chatty(_given):
        sys.stdout.write("a library talks\n")
        return Answer({"a": 1, "path": cli.Path("x")}, ("to read",))

    monkeypatch.setattr(cli, "_run_inspect", chatty)
    assert main(["inspect", "x", "--json"]) == 0
    assert capsys.readouterr().out == '{"a": 1, "path": "x"}\n'
    assert main(["inspect", "x"]) == 0
    assert capsys.readouterr() == ("to read\n", "a library talks\n")


def test_train_grid_and_inspect_work_together(embedded, pictures, tmp_path, last_json, capsys):
    out = tmp_path / "out"
    assert main(train(pictures, out, "--trigger-word", "jeff_person", "--json")) == 0
    trained = last_json()
    assert trained["path"] == str(out / "models" / "Lora" / "jeff.safetensors")
    assert (trained["steps"], trained["stopped_early"]) == (2, False)
    # The shipped recipes choose the strength by what the run measured of itself.
    assert trained["tag"] == f"<lora:jeff:{trained['best_strength']:g}>"
    assert any("64×64 px" in notice for notice in trained["notices"])
    metadata = read_metadata(out / "models" / "Lora" / "jeff.safetensors")
    assert metadata["ss_network_dim"] == "2"
    assert "jeff_person" in (out / "models" / "Lora" / "jeff.json").read_text(encoding="utf-8")

    request = ["grid", "--out", str(out), "--lora", "jeff", "--prompt", "a", "--prompt", "b"]
    assert main([*request, "--strengths", "0,1", "--steps", "1", "--json"]) == 0
    assert last_json()["path"] == str(out / "strength_grid.png")
    from PIL import Image

    # Two columns of the model's own 64 px, enlarged three times.
    assert Image.open(out / "strength_grid.png").width == 8 + 2 * (192 + 8)

    assert main(["inspect", trained["path"], "--json"]) == 0
    held = last_json()
    assert (held["adapter"], held["family"], held["unmatched_keys"]) == (["LoHa"], "SD 1.x", [])
    assert held["modules"]["text_encoder"] == 0
    assert held["modules"]["unet"] > 50
    assert main(["inspect", trained["path"]]) == 0
    assert "LoHa for SD 1.x" in capsys.readouterr().out


def test_a_foreign_checkpoint_trains_at_the_size_of_the_recipe(weights, pictures, tmp_path, last_json):
    sizes = ["--set", "resolution_px=64,64", "--set", "min_bucket_reso=64"]
    assert main(train(pictures, tmp_path / "out", "--checkpoint", str(weights), *sizes, "--json")) == 0
    assert not any("64×64" in notice for notice in last_json()["notices"])


def test_ui_serves_the_tab_on_this_host(monkeypatch, embedded, tmp_path):
    pytest.importorskip("gradio")
    import lib_trainer.app as app

    served = {}
    monkeypatch.setattr(app, "serve", lambda host, access, port: served.update(host=host, access=access, port=port))
    assert main(["ui", "--out", str(tmp_path), "--port", "7900", "--api", "--allow", "pictures"]) == 0
    assert served["port"] == 7900
    assert served["access"].changes and Path("pictures") in served["access"].folders
    assert served["host"].lora_dir == tmp_path / "models" / "Lora"
