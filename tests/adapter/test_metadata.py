"""What a finished file says of itself, and that WebUIs, kohya's tools and we ourselves read it back."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save

from lib_trainer.adapter.metadata import RECIPE_KEY, TrainedOn, TrainedPicture, file_hashes, file_metadata
from lib_trainer.config.recipe import Recipe
from lib_trainer.lora.card import new_card
from lib_trainer.models.base import CheckpointInfo
from lib_trainer.models.families import SD1, SD2, SDXL, Family
from lib_trainer.recipes.files import recipe_from_metadata
from lib_trainer.recipes.kohya_gui import read_gui
from lib_trainer.recipes.kohya_metadata import gui_settings

CHECKPOINT = CheckpointInfo("Realistic.safetensors", "ab" * 32, vae="kl.safetensors")
RECIPE = Recipe().with_values(
    {
        "output_name": "jeff_person",
        "train_data_dir": "/home/jeff/secret",
        "trigger_word": "jeff_person",
        "algo": "lokr",
        "factor": 8,
        "network_dim": 12,
        "max_train_steps": 100,
        "lr_warmup": 5,
        "seed": 7,
        "clip_skip": 2,
        "resolution_px": "896,640",
        "comment": "for a friend",
        "min_snr_gamma": 5,
        "noise_offset": 0.05,
    }
)
TRAINED_ON = TrainedOn(
    (
        TrainedPicture("10_jeff_person", "jeff_person, Portrait photo", 10, (896, 640)),
        TrainedPicture("10_jeff_person", "jeff_person, smiling", 10, (640, 896)),
        TrainedPicture("1_more", "jeff_person", 1, (640, 896)),
    ),
    batches_per_epoch=21,
    trigger_word="jeff_person",
)


def metadata(family: Family = SDXL, prediction: str = "epsilon") -> dict[str, str]:
    return file_metadata(RECIPE, family, CHECKPOINT, TRAINED_ON, prediction=prediction, steps=60, epoch=3)


def test_everything_is_text() -> None:
    assert all(type(key) is str and type(value) is str and value for key, value in metadata().items())


def test_kohyas_names() -> None:
    expected = {
        "ss_output_name": "jeff_person",
        "ss_network_module": "lycoris.kohya",
        "ss_network_dim": "12",
        "ss_network_alpha": "16.0",
        "ss_learning_rate": "0.0001",
        "ss_unet_lr": "0.0001",
        "ss_steps": "60",
        "ss_epoch": "3",
        "ss_max_train_steps": "100",
        "ss_lr_warmup_steps": "5",
        "ss_resolution": "896,640",
        "ss_base_model_version": "sdxl_base_v1-0",
        "ss_v2": "False",
        "ss_sd_model_name": "Realistic.safetensors",
        "ss_new_sd_model_hash": "ab" * 32,
        "ss_vae_name": "kl.safetensors",
        "ss_num_train_images": "21",
        "ss_num_batches_per_epoch": "21",
        "ss_seed": "7",
        "ss_training_comment": "for a friend",
        "ss_min_snr_gamma": "5.0",
        "ss_noise_offset": "0.05",
        "ss_shuffle_caption": "False",
    }
    made = metadata()
    assert {key: made.get(key) for key in expected} == expected
    assert json.loads(made["ss_network_args"]) == {
        "algo": "lokr",
        "preset": "full",
        "conv_dim": "8",
        "conv_alpha": "4.0",
        "rank_dropout": "0.0",
        "module_dropout": "0.0",
        "use_tucker": "False",
        "factor": "8",
        "decompose_both": "False",
        "full_matrix": "False",
    }


def test_the_dataset_as_the_webuis_card_shows_it() -> None:
    made = metadata()
    assert json.loads(made["ss_tag_frequency"]) == {
        "10_jeff_person": {"jeff_person": 2, "portrait photo": 1, "smiling": 1},
        "1_more": {"jeff_person": 1},
    }
    assert json.loads(made["ss_dataset_dirs"]) == {
        "10_jeff_person": {"n_repeats": 10, "img_count": 2},
        "1_more": {"n_repeats": 1, "img_count": 1},
    }
    assert json.loads(made["ss_bucket_info"])["buckets"] == {
        "0": {"resolution": [640, 896], "count": 11},
        "1": {"resolution": [896, 640], "count": 10},
    }


@pytest.mark.parametrize(
    ("family", "prediction", "version", "architecture", "v2"),
    [
        (SD1, "epsilon", "sd_v1", "stable-diffusion-v1/lora", "False"),
        (SD1, "v", "sd_v1_v", "stable-diffusion-v1/lora", "False"),
        (SD2, "epsilon", "sd_v2", "stable-diffusion-v2-512/lora", "True"),
        (SD2, "v", "sd_v2_v", "stable-diffusion-v2-768-v/lora", "True"),
        (SDXL, "v", "sdxl_base_v1-0", "stable-diffusion-xl-v1-base/lora", "False"),
    ],
)
def test_webuis_tell_the_families_apart(
    family: Family, prediction: str, version: str, architecture: str, v2: str
) -> None:
    made = metadata(family=family, prediction=prediction)
    assert (made["ss_base_model_version"], made["modelspec.architecture"], made["ss_v2"]) == (version, architecture, v2)
    assert made["modelspec.prediction_type"] == prediction


def test_model_spec() -> None:
    made = metadata()
    expected = {
        "sai_model_spec": "1.0.1",
        "title": "jeff_person",
        "trigger_phrase": "jeff_person",
        "resolution": "896x640",
        "usage_hint": "<lora:jeff_person:0.8>",
        "description": "for a friend",
        "encoder_layer": "2",
        "implementation": "https://github.com/Stability-AI/generative-models",
    }
    assert {key: made[f"modelspec.{key}"] for key in expected} == expected
    assert metadata(family=SD1)["modelspec.implementation"] == "diffusers"


def test_the_same_run_writes_the_same_words_and_no_paths() -> None:
    assert metadata() == metadata()
    text = json.dumps(metadata())
    assert "secret" not in text and "started_at" not in text and "session" not in text and "date" not in metadata()


def test_our_recipe_comes_back_but_for_the_folder() -> None:
    loaded = recipe_from_metadata(metadata())
    assert loaded.recipe == replace(RECIPE, dataset=replace(RECIPE.dataset, train_data_dir=""))
    assert loaded.notices == ()


def test_kohyas_names_alone_bring_back_what_they_hold() -> None:
    """What we write under `ss_*` means to a reader of kohya's names what it means to us."""
    reading = read_gui(gui_settings({key: value for key, value in metadata().items() if key != RECIPE_KEY}))
    back, was = Recipe().with_values(reading.values).flat(), RECIPE.flat()
    forgotten = {"train_data_dir", "trigger_word"}
    assert {key: value for key, value in back.items() if value != was[key] and key not in forgotten} == {}
    assert reading.problems == {} and reading.notices == ()


def test_hashes_are_those_of_kohyas_tools() -> None:
    """kohya: SHA-256 of everything behind the header; and, as before 2023, of 64 KiB one MiB into the file."""
    content = save({"a": torch.arange(600_000, dtype=torch.float32), "b": torch.ones(3)})
    header = int.from_bytes(content[:8], "little")
    assert file_hashes(content) == {
        "sshs_model_hash": hashlib.sha256(content[8 + header :]).hexdigest(),
        "sshs_legacy_hash": hashlib.sha256(content[1 << 20 : (1 << 20) + (1 << 16)]).hexdigest()[:8],
    }


def test_the_hash_knows_the_tensors_and_only_them() -> None:
    one, other = {"a": torch.zeros(4)}, {"a": torch.full((4,), 1e-5)}
    assert file_hashes(save(one)) != file_hashes(save(other))
    assert file_hashes(save(one)) == file_hashes(save(one, {"ss_output_name": "renamed"}))
    # Small files have no bytes there: a constant would make WebUIs swap them.
    assert "sshs_legacy_hash" not in file_hashes(save(one))


def test_the_card() -> None:
    made = new_card(RECIPE, SDXL, CHECKPOINT, TRAINED_ON, steps=60)
    assert made == {
        "description": "for a friend",
        "sd version": "SDXL",
        "activation text": "jeff_person",
        "preferred weight": 0.8,
        "notes": "Trained with Train LoRA: LoKr 12/8, 60 steps on 3 pictures, on Realistic.safetensors (SDXL).",
    }
