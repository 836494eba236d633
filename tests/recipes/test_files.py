"""Recipe files: the shipped ones, our own, kohya_ss', and what an adapter file says of itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lib_trainer.adapter.metadata import RECIPE_KEY
from lib_trainer.config.arguments import parse_arguments
from lib_trainer.config.flow import FlowConfig
from lib_trainer.config.recipe import Recipe, ignored_settings
from lib_trainer.errors import UserError
from lib_trainer.recipes.files import load_recipe, presets, recipe_from_metadata, save_recipe
from lib_trainer.recipes.loaded import LoadedRecipe
from tests.recipes.opened import load


def test_the_two_recipes_the_project_is_built_around() -> None:
    face, style, *others = (load_recipe(path) for path in presets().values())
    for_transformers, two_way = others[:2], others[2:]
    expected = {
        "algo": "loha",
        "network_dim": 32,
        "conv_dim": 8,
        "learning_rate": 3e-5,
        "use_tucker": True,
        "min_snr_gamma": 5,
        "shuffle_caption": True,
        "keep_tokens": 1,
        "noise_offset": 0.05,
        "resolution_px": (896, 896),
        "gradient_checkpointing": True,
        "text_encoder_lr": 0,
        "optimizer": "AdamW8bit",
        "preferred_weight": 0.8,
    }
    assert expected.items() <= face.recipe.flat().items()
    expected = {
        "algo": "lokr",
        "network_dim": 64,
        "factor": 8,
        "learning_rate": 1e-4,
        "color_aug": True,
        "flip_aug": True,
        "random_crop": True,
        "noise_offset": 0.1,
        "resolution_px": (896, 896),
        "gradient_checkpointing": True,
        "text_encoder_lr": 0,
        "optimizer": "AdamW8bit",
        "preferred_weight": 1.0,
    }
    assert expected.items() <= style.recipe.flat().items()
    assert list(presets())[:2] == ["Face · LoHa · 8 GB", "Style · LoKr · 8 GB"]
    assert [loaded.recipe.adapter.algo for loaded in for_transformers] == ["loha", "lokr"]
    assert [loaded.recipe.task.mode for loaded in two_way] == ["slider", "difference"]
    # Both strengths in every step.
    assert {loaded.recipe.training.gradient_accumulation_steps for loaded in two_way} == {2}
    for loaded in for_transformers:
        # The family decides the shift; what only UNets know is off.
        assert loaded.recipe.flow == FlowConfig() and ignored_settings(loaded.recipe, "zimage") == []
        assert loaded.recipe.training.learning_rate == 1e-4 and loaded.recipe.adapter.network_dim == 16


@pytest.mark.parametrize("path", presets().values(), ids=lambda path: path.stem)
def test_a_shipped_recipe_holds_nothing_that_is_not_used(path: Path) -> None:
    loaded = load_recipe(path)
    assert loaded.notices == ()
    # kohya refuses these two together with cached latents; a person who opens the file there must not fall over it.
    data = json.loads(path.read_text("utf-8"))
    if data.get("color_aug") or data.get("random_crop"):
        assert not data["cache_latents_to_disk"]


def test_our_own_file_and_back(tmp_path: Path) -> None:
    recipe = Recipe().with_values({"algo": "lokr", "resolution_px": "512,768", "comment": "ä", "seed": 7})
    save_recipe(tmp_path / "deep" / "own.json", recipe)
    assert load_recipe(tmp_path / "deep" / "own.json") == LoadedRecipe(recipe, ())
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["own.json"]


def test_our_own_file_may_be_short_and_hold_strangers(tmp_path: Path) -> None:
    assert load(tmp_path, {"network_dim": 4}).recipe.adapter.network_dim == 4
    loaded = load(tmp_path, {"algo": "lokr", "conv_dim": 0, "xformers": True})
    assert loaded.recipe.adapter.conv_dim == 0 and loaded.notices == ("Not known here: xformers.",)


def test_a_file_from_windows(tmp_path: Path) -> None:
    (tmp_path / "bom.json").write_bytes(b"\xef\xbb\xbf" + json.dumps({"algo": "lokr"}).encode())
    assert load_recipe(tmp_path / "bom.json").recipe.adapter.algo == "lokr"


@pytest.mark.parametrize("text", ["{", "[1, 2]", "3", '{"seed": NaN}', "[" * 200_000, '"algo"', ""])
def test_what_is_no_recipe(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError) as caught:
        load(tmp_path, text)
    assert "recipe.json" in caught.value.message and caught.value.hint


def test_files_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.json cannot be read"):
        load_recipe(tmp_path / "gone.json")
    (tmp_path / "large.json").write_text("{}" + " " * 2_000_000)
    with pytest.raises(UserError, match=r"large\.json is too large"):
        load_recipe(tmp_path / "large.json")
    (tmp_path / "picture.json").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(UserError, match="is not a text file"):
        load_recipe(tmp_path / "picture.json")
    with pytest.raises(UserError, match="could not be written"):
        save_recipe(tmp_path / "large.json" / "below.json", Recipe())


def test_our_own_adapter_file_brings_its_recipe_back() -> None:
    recipe = Recipe().with_values({"algo": "lokr", "network_dim": 12, "comment": "hello"})
    assert recipe_from_metadata({RECIPE_KEY: json.dumps(recipe.flat())}) == LoadedRecipe(recipe, ())


def test_kohyas_adapter_file_says_how_it_was_trained() -> None:
    """As sd-scripts writes it: everything is text, and what was not given is "None"."""
    metadata = {
        "ss_network_module": "lycoris.kohya",
        "ss_network_dim": "16",
        "ss_network_alpha": "8.0",
        "ss_network_args": json.dumps({"algo": "lokr", "conv_dim": "4", "factor": "8", "preset": "full"}),
        "ss_learning_rate": "0.0001",
        "ss_unet_lr": "0.0002",
        "ss_text_encoder_lr": "None",
        "ss_optimizer": "bitsandbytes.optim.adamw.AdamW8bit(weight_decay=0.1,betas=(0.9, 0.99))",
        "ss_max_train_steps": "1000",
        "ss_lr_warmup_steps": "50",
        "ss_num_epochs": "10",
        "ss_lr_scheduler": "cosine",
        "ss_min_snr_gamma": "5.0",
        "ss_noise_offset": "None",
        "ss_debiased_estimation": "True",
        "ss_loss_type": "huber",
        "ss_ip_noise_gamma": "0.1",
        "ss_seed": "42",
        "ss_mixed_precision": "fp16",
        "ss_output_name": "a style",
        "ss_training_comment": "None",
        "ss_datasets": json.dumps(
            [{"resolution": [768, 512], "batch_size_per_device": 2, "subsets": [{"flip_aug": True, "keep_tokens": 1}]}]
        ),
    }
    loaded = recipe_from_metadata(metadata)
    expected = {
        "algo": "lokr",
        "network_dim": 16,
        "network_alpha": 8,
        "conv_dim": 4,
        "conv_alpha": 8,
        "factor": 8,
        "learning_rate": 2e-4,
        "text_encoder_lr": 0,
        "optimizer": "AdamW8bit",
        "weight_decay": 0.1,
        "lr_warmup": 5,
        "max_train_steps": 1000,
        "epoch": 10,
        "min_snr_gamma": 5,
        "debiased_estimation_loss": True,
        "loss_type": "huber",
        "ip_noise_gamma": 0.1,
        "seed": 42,
        "resolution_px": (768, 512),
        "train_batch_size": 2,
        "flip_aug": True,
        "keep_tokens": 1,
        "output_name": "a style",
        "comment": "",
    }
    assert expected.items() <= loaded.recipe.flat().items()
    assert loaded.notices == ("text_encoder_lr is not in the file: the text encoder is left alone.",)
    assert parse_arguments(loaded.recipe.training.optimizer_args) == {"betas": (0.9, 0.99)}


@pytest.mark.parametrize("metadata", [{}, {"format": "pt"}, {"ss_steps": "3"}])
def test_a_file_that_says_nothing(metadata: dict[str, str]) -> None:
    with pytest.raises(UserError, match="does not say how it was trained"):
        recipe_from_metadata(metadata)


def test_broken_metadata_is_a_sentence() -> None:
    with pytest.raises(UserError):
        recipe_from_metadata({RECIPE_KEY: "{"})
    broken = {"ss_network_module": "networks.lora", "ss_network_args": "[", "ss_datasets": "{}", "ss_network_dim": "8"}
    assert recipe_from_metadata(broken).recipe.adapter.network_dim == 8


def test_an_adapter_file_brings_its_settings_back(tmp_path):
    path = tmp_path / "jeff.safetensors"
    recipe = Recipe().with_values({"output_name": "jeff", "network_dim": 12, "resolution_px": "640,512"})
    header = json.dumps({"__metadata__": {"train_lora_recipe": json.dumps(recipe.flat())}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    assert load_recipe(path).recipe == recipe


@pytest.mark.parametrize("content", [b"", b"\xff" * 20, (10**12).to_bytes(8, "little"), b"\x02" + b"\0" * 7 + b"{}"])
def test_a_file_that_is_no_adapter_of_ours_is_said(tmp_path, content):
    path = tmp_path / "odd.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError):
        load_recipe(path)


def test_our_own_name_of_a_setting_wins_over_kohyas(tmp_path: Path) -> None:
    both = {
        "network_dim": 8,
        "resolution_px": "512,512",
        "max_resolution": "768,768",
        "epoch": 3,
        "max_train_epochs": 9,
    }
    recipe = load(tmp_path, both).recipe
    assert (recipe.dataset.resolution_px, recipe.training.epoch) == ((512, 512), 3)
