"""sd-scripts' arguments as TOML and JSON, and its dataset TOML."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lib_trainer.recipes.files import load_recipe, recipe_from_object
from lib_trainer.recipes.source import parse_toml

CONFIG = """
[model]
pretrained_model_name_or_path = "/models/base.safetensors"
[network]
network_module = "lycoris.kohya"
network_dim = 16
network_alpha = 8
network_args = ["algo=lokr", "preset=full", "conv_dim=4", "conv_alpha=2", "factor=8", "use_tucker=True"]
network_train_unet_only = true
[optimizer]
optimizer_type = "AdamW8bit"
optimizer_args = ["weight_decay=0.1", "betas=0.9,0.99"]
learning_rate = 2e-4
lr_scheduler = "cosine"
lr_warmup_steps = 0.05
[training]
resolution = "768,512"
train_batch_size = 2
max_train_epochs = 12
min_snr_gamma = 5
noise_offset = 0.05
seed = 7
mixed_precision = "bf16"
sdpa = true
zero_terminal_snr = true
output_name = "a_style"
"""
DATASET = """
[general]
enable_bucket = true
shuffle_caption = true
keep_tokens = 1
[[datasets]]
resolution = 640
batch_size = 3
  [[datasets.subsets]]
  image_dir = "/pictures/man"
  is_reg = true
  [[datasets.subsets]]
  image_dir = "/pictures/jeff"
  num_repeats = 10
  keep_tokens = 2
  [[datasets.subsets]]
  image_dir = "/pictures/other"
"""
EXPECTED = {
    "algo": "lokr",
    "network_dim": 16,
    "network_alpha": 8,
    "conv_dim": 4,
    "conv_alpha": 2,
    "factor": 8,
    "use_tucker": True,
    "learning_rate": 2e-4,
    "text_encoder_lr": 0,
    "optimizer": "AdamW8bit",
    "weight_decay": 0.1,
    "lr_scheduler": "cosine",
    "lr_warmup": 5,
    "resolution_px": (768, 512),
    "train_batch_size": 2,
    "epoch": 12,
    "max_train_steps": 0,
    "min_snr_gamma": 5,
    "noise_offset": 0.05,
    "seed": 7,
    "mixed_precision": "bf16",
    "output_name": "a_style",
}


def read(path: Path, text: str) -> Any:
    path.write_text(text, "utf-8")
    return load_recipe(path)


def test_a_config_file(tmp_path: Path) -> None:
    loaded = read(tmp_path / "config.toml", CONFIG)
    assert EXPECTED.items() <= loaded.recipe.flat().items()
    assert loaded.problems == {}
    assert loaded.recipe.loss.zero_terminal_snr
    assert any("pretrained_model_name_or_path" in text for text in loaded.notices)


def test_the_same_as_json_with_network_args_as_a_text(tmp_path: Path) -> None:
    flat = {name: value for section in parse_toml(CONFIG, "config.toml").values() for name, value in section.items()}
    flat["network_args"] = " ".join(flat["network_args"])
    loaded = read(tmp_path / "config.json", json.dumps(flat))
    assert EXPECTED.items() <= loaded.recipe.flat().items()


def test_sections_within_sections_as_other_pages_for_sd_scripts_write_them() -> None:
    data = {
        "subsets": [{"image_dir": "/pictures", "num_repeats": 2, "shuffle_caption": True}],
        "general_args": {"args": {"seed": 3}, "dataset_args": {"resolution": [640, 512], "batch_size": 2}},
        "network_args": {"args": {"network_dim": 4, "network_alpha": 2, "network_args": {"algo": "loha"}}},
        "optimizer_args": {"args": {"learning_rate": 1e-3, "optimizer_args": {"weight_decay": "0.2"}}},
    }
    loaded = recipe_from_object(data, "file.toml")
    expected = {
        "algo": "loha",
        "network_dim": 4,
        "network_alpha": 2,
        "weight_decay": 0.2,
        "learning_rate": 1e-3,
        "resolution_px": (640, 512),
        "train_batch_size": 2,
        "shuffle_caption": True,
        "seed": 3,
        "text_encoder_lr": 0,
        "train_data_dir": "/pictures",
    }
    assert expected.items() <= loaded.recipe.flat().items()


def test_a_datasets_file(tmp_path: Path) -> None:
    loaded = read(tmp_path / "dataset.toml", DATASET)
    expected = {
        "resolution_px": (640, 640),
        "train_batch_size": 3,
        "shuffle_caption": True,
        "keep_tokens": 2,  # the innermost wins
        "train_data_dir": "/pictures/jeff",
        "reg_data_dir": "/pictures/man",
    }
    assert expected.items() <= loaded.recipe.flat().items()
    assert any("10_jeff_person" in text for text in loaded.notices)
    assert "Of the 2 subsets in the file the first is read." in loaded.notices


@pytest.mark.parametrize(
    ("module", "arguments", "algo", "conv_dim"),
    [
        ("networks.lora", [], "locon", 0),
        ("networks.lora", ["conv_dim=4"], "locon", 4),
        ("networks.loha", [], "loha", 0),
        ("networks.lokr", ["conv_dim=4"], "lokr", 4),
        ("lycoris.kohya", ["algo=loha"], "loha", 16),
        ("lycoris.kohya", ["algo=lokr", "conv_dim=0"], "lokr", 0),
        ("lycoris.kohya", [], "locon", 16),
    ],
)
def test_networks(module: str, arguments: list[str], algo: str, conv_dim: int) -> None:
    data = {"network_module": module, "network_dim": 16, "network_args": arguments}
    adapter = recipe_from_object(data, "file").recipe.adapter
    assert (adapter.algo, adapter.conv_dim) == (algo, conv_dim)


def test_an_alpha_that_is_not_given_is_sd_scripts_own() -> None:
    adapter = recipe_from_object({"network_module": "networks.lora"}, "file").recipe.adapter
    assert (adapter.network_dim, adapter.network_alpha) == (4, 1)


@pytest.mark.parametrize("module", ["networks.dylora", "networks.oft", "networks.lora_flux"])
def test_networks_that_cannot_be_trained_are_named(module: str) -> None:
    assert module in recipe_from_object({"network_module": module}, "file").problems["algo"]


def test_sd_scripts_fields_for_options_of_schedules() -> None:
    data = {"network_module": "networks.lora", "lr_scheduler": "warmup_stable_decay", "lr_decay_steps": 0.3}
    assert recipe_from_object(data, "file").recipe.training.lr_scheduler_args == "num_decay_steps=0.3"
    data = {"network_module": "networks.lora", "lr_scheduler": "cosine_with_min_lr", "lr_scheduler_min_lr_ratio": 0.1}
    assert recipe_from_object(data, "file").recipe.training.lr_scheduler_args == "min_lr_rate=0.1"
    none = {**data, "lr_scheduler": "cosine", "lr_decay_steps": 100}
    assert recipe_from_object(none, "file").recipe.training.lr_scheduler_args == ""


def test_rates_and_length_that_are_not_given_are_said() -> None:
    loaded = recipe_from_object({"network_module": "networks.lora", "learning_rate": 1e-4}, "file")
    assert (loaded.recipe.training.learning_rate, loaded.recipe.training.text_encoder_lr) == (1e-4, 0)
    assert any("text encoder is left alone" in text for text in loaded.notices)
    assert any("1600 steps" in text for text in loaded.notices)
    only_text = {"network_train_text_encoder_only": True, "learning_rate": 1e-4, "network_module": "networks.lora"}
    training = recipe_from_object(only_text, "file").recipe.training
    assert (training.learning_rate, training.text_encoder_lr) == (0, 1e-4)
    several = recipe_from_object({**only_text, "text_encoder_lr": [2e-4, 1e-4]}, "file")
    assert several.recipe.training.text_rates == (2e-4, 1e-4)
