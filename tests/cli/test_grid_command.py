"""`grid`: what is drawn for which arguments, and what Ctrl-C keeps."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from lib_trainer.adapter.io import adapter_tensors, copy_adapter, save_adapter
from lib_trainer.cli import grid
from lib_trainer.cli.main import main
from lib_trainer.host.standalone.host import StandaloneHost
from tests.host.helpers import LOHA, learned_adapter


@pytest.fixture(scope="module")
def adapter_file(weights, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("adapter")
    path = folder / "jeff.safetensors"
    with StandaloneHost(folder, weights).open_model() as model:
        adapter = learned_adapter(model.adaptable_layers(), LOHA)
    save_adapter(path, adapter_tensors(adapter, "fp32"), {"ss_base_model_version": "sd_v1", "ss_steps": "9"})
    return path


@pytest.fixture
def out(embedded, adapter_file, tmp_path) -> Path:
    """A results folder with a run of three saved steps, and a style."""
    for name in ("jeff", "jeff-000001", "jeff-000002", "oil style"):
        copy_adapter(adapter_file, tmp_path / "models" / "Lora" / f"{name}.safetensors", name)
    return tmp_path


def run(out: Path, *arguments: str) -> int:
    return main(["grid", "--out", str(out), "--steps", "1", "--cfg", "1", "--json", *arguments])


def test_every_prompt_at_every_strength_with_the_change_from_strength_0(out, last_json):
    assert run(out, "--lora", "jeff", "--prompt", "a", "--prompt", "b", "--strengths", "0:1:0.5") == 0
    cells = last_json()["cells"]
    assert [cell["prompt"] for cell in cells[:3]] == ["a", "a <lora:jeff:0.5>", "a <lora:jeff:1>"]
    assert [cell["row"] for cell in cells] == ["a"] * 3 + ["b"] * 3
    assert cells[0]["change_percent"] is None
    assert cells[1]["change_percent"] > 0
    text = Image.open(out / "strength_grid.png").text["parameters"]
    assert text.startswith("a\nSteps: 1, Sampler: Euler")
    assert "Script: Train LoRA grid" in text


def test_two_adapters_against_each_other(out, last_json):
    assert run(out, "--lora", "jeff", "--with", "oil style:0,1", "--prompt", "p", "--strengths", "0,1") == 0
    assert [cell["prompt"] for cell in last_json()["cells"]] == [
        "p", "p <lora:oil style:1>", "p <lora:jeff:1>", "p <lora:jeff:1> <lora:oil style:1>",
    ]  # fmt: skip


def test_a_second_adapter_at_one_strength_takes_part_in_every_picture(out, last_json):
    assert run(out, "--lora", "jeff", "--with", "oil style:0.4", "--prompt", "p", "--strengths", "0,1") == 0
    assert [cell["prompt"] for cell in last_json()["cells"]] == [
        "p <lora:oil style:0.4>", "p <lora:jeff:1> <lora:oil style:0.4>",
    ]  # fmt: skip


def test_the_saved_steps_of_a_run_are_rows(out, last_json):
    assert run(out, "--lora", "jeff", "--epochs", "--prompt", "p <lora:jeff:1>", "--strengths", "1") == 0
    cells = last_json()["cells"]
    assert [cell["prompt"] for cell in cells] == [f"p <lora:{n}:1>" for n in ("jeff-000001", "jeff-000002", "jeff")]
    assert cells[0]["row"] == "epoch 1 · step 9"


def test_prompts_and_seeds_are_proposed_and_repeated(out, last_json):
    assert run(out, "--lora", "oil style", "--strengths", "0", "--seed", "1,2") == 0
    cells = last_json()["cells"]
    assert cells[0]["prompt"] == "cat in oil style style"
    assert [cell["seed"] for cell in cells] == [1, 2, 1, 2]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--lora", "jef"], "Did you mean jeff?"),
        (["--lora", "jeff", "--with", "oil:1"], "no LoRA named oil"),
        (["--lora", "jeff", "--with", "jeff:1"], "combined with itself"),
        (["--lora", "jeff", "--prompt", "p <lora:nobody:1>"], "no LoRA named nobody"),
        (["--lora", "jeff", "--seed", "one"], "not a seed"),
        (["--lora", "jeff", "--sampler", "PLMS"], "PLMS"),
    ],
)
def test_what_cannot_be_drawn_is_said_first(arguments, said, out, last_json):
    assert run(out, *arguments) == 2
    values = last_json()
    assert said in values["error"] + values["hint"]
    assert not (out / "strength_grid.png").exists()


def test_ctrl_c_keeps_what_is_drawn(out, last_json, monkeypatch):
    real = grid.draw_cells

    def interrupted(*given):
        for number, item in enumerate(real(*given)):
            if number == 2:
                raise KeyboardInterrupt
            yield item

    monkeypatch.setattr(grid, "draw_cells", interrupted)
    assert run(out, "--lora", "jeff", "--prompt", "p", "--strengths", "0,0.5,1") == 130
    values = last_json()
    assert (values["stopped_early"], len(values["cells"])) == (True, 2)
    assert Image.open(out / "strength_grid.png").width == 8 + 3 * (192 + 8)
