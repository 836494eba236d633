from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from lib_trainer.cli.main import main
from lib_trainer.memory.plan import GIB


def answer(capsys, *arguments: str) -> tuple[int, dict[str, Any]]:
    code = main(["plan", *arguments, "--json"])
    return code, json.loads(capsys.readouterr().out.splitlines()[-1])


@pytest.mark.parametrize("recipe", ["loha_face_config_8gb", "lokr_style_config_8gb"])
def test_a_plan_says_what_it_takes_and_how(capsys, recipe: str) -> None:
    code, plan = answer(capsys, recipe, "--family", "sdxl", "--size", "1024", "--budget", "8GB")
    assert code == 0 and plan["fits"]
    assert (
        plan["predicted_bytes"]
        == sum(plan["parts"].values())
        <= plan["budget_bytes"]
        == round(8 * GIB) - round(0.8 * GIB)
    )
    assert 0 < plan["recomputed_blocks"] <= plan["blocks"]


def test_lines_are_for_people(capsys) -> None:
    assert main(["plan", "loha_face_config_8gb", "--budget", "6 gb", "--size", "640x896"]) == 0
    text = capsys.readouterr().out
    assert "SD 1.x at 640×896 px" in text and "the checkpoint" in text and "of 5.20 GB" in text


def test_settings_change_the_plan(capsys) -> None:
    _, small = answer(capsys, "loha_face_config_8gb", "--family", "sdxl", "--set", "network_dim=8")
    _, large = answer(capsys, "loha_face_config_8gb", "--family", "sdxl")
    assert small["parts"]["the adapter"] < large["parts"]["the adapter"]


def test_lora_files_count_by_their_paths(capsys, tmp_path) -> None:
    path, layer = tmp_path / "style.safetensors", "lora_unet_mid_block_attentions_0_proj_in"
    tensors = {f"{layer}.lora_up.weight": torch.zeros(1280, 8), f"{layer}.lora_down.weight": torch.zeros(8, 1280)}
    save_file(tensors, path)
    size = sum(tensor.nbytes for tensor in tensors.values())
    named = ("--set", f"network_weights={path}", "--set", "dim_from_weights=true")
    _, continued = answer(capsys, "loha_face_config_8gb", *named)
    assert continued["parts"]["the adapter"] == size
    _, plain = answer(capsys, "loha_face_config_8gb")
    _, over = answer(capsys, "loha_face_config_8gb", "--set", f"base_weights={path}")
    assert over["parts"]["the checkpoint"] - plain["parts"]["the checkpoint"] == size
    code, error = answer(capsys, "loha_face_config_8gb", "--set", "base_weights=style")
    assert code == 2 and "There is no file style." in error["error"]


@pytest.mark.parametrize("budget", ["lots", "-8", "0", "0.5GB", "8TB", "1e9", "99999"])
def test_nonsense_budgets_are_refused(capsys, budget: str) -> None:
    code, error = answer(capsys, "loha_face_config_8gb", f"--budget={budget}")
    assert code == 2 and "not a valid VRAM size" in error["error"]


def test_a_budget_that_cannot_be_met_ends_with_what_it_takes(capsys) -> None:
    code, error = answer(capsys, "loha_face_config_8gb", "--family", "sdxl", "--size", "1024", "--budget", "2GB")
    assert code == 2
    assert "at least" in error["error"] and "1.2 GB are available" in error["error"] and error["hint"]


@pytest.mark.parametrize("size", ["huge", "10", "512x", "512x512x512"])
def test_a_size_that_is_none_is_refused(capsys, size: str) -> None:
    code, error = answer(capsys, "loha_face_config_8gb", "--size", size)
    assert code == 2 and "is not a size" in error["error"]


def test_a_setting_mends_what_is_wrong_in_the_file(capsys, tmp_path) -> None:
    path = tmp_path / "kohya.json"
    path.write_text(json.dumps({"LoRA_type": "Standard", "network_dim": 8, "lr_scheduler": "piecewise_constant"}))
    code, error = answer(capsys, str(path))
    assert code == 2 and "lr_scheduler: 'piecewise_constant' is not one of" in error["error"]
    code, _ = answer(capsys, str(path), "--set", "lr_scheduler=constant")
    assert code == 0
