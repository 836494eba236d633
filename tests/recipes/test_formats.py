"""Which program wrote a file: each format is known by its names, and what is none of them is refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from lib_trainer.config.recipe import Recipe
from lib_trainer.errors import UserError
from lib_trainer.recipes.files import recipe_from_object
from lib_trainer.recipes.formats import recognize
from lib_trainer.recipes.kohya_table import FIELDS

ONETRAINER = {"training_method": "LORA", "peft_type": "LOHA", "lora_rank": 8, "learning_rate": 1e-4, "epochs": 3}
SD_SCRIPTS = {"network_module": "lycoris.kohya", "network_args": ["algo=loha"], "learning_rate": 1e-4}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (Recipe().flat(), "ours"),
        ({"network_dim": 4}, "ours"),
        ({"algo": "lokr", "conv_dim": 0, "xformers": True}, "ours"),
        ({**Recipe().flat(), "LoRA_type": "Standard"}, "ours"),
        ({"LoRA_type": "LyCORIS/LoHa", "learning_rate": 3e-5}, "kohya_gui"),
        (dict.fromkeys(FIELDS, ""), "kohya_gui"),
        (SD_SCRIPTS, "sd_scripts"),
        # A name that only one program has outweighs two that several share.
        ({"network_module": "lycoris.kohya", "learning_rate": 1e-4, "conv_dim": 8, "factor": 4}, "sd_scripts"),
        ({"network": SD_SCRIPTS, "saving": {"output_name": "x"}}, "sd_scripts"),
        ({"general": {"enable_bucket": True}, "datasets": [{"resolution": 512, "subsets": []}]}, "sd_scripts"),
        (ONETRAINER, "onetrainer"),
        ({"ss_network_module": "networks.lora", "ss_network_dim": "8"}, "metadata"),
    ],
)
def test_a_format_is_known_by_its_names(data: dict[str, Any], expected: str) -> None:
    assert recognize(data, "file") == expected


@pytest.mark.parametrize(
    ("data", "looks_like"),
    [
        ({"name": "x", "version": "1.0.0"}, "package.json"),
        ({"name": "x", "version": "1", "seed": 3, "scripts": {}}, "package.json"),
        ({"sd version": "SD1", "activation text": "x", "preferred weight": 0.8, "notes": ""}, "a LoRA's card"),
        ({"peft_type": "LOHA", "r": 8, "alpha": 16, "target_modules": ["to_k"]}, "adapter_config.json"),
        ({"peft_type": "LORA", "r": 8, "lora_alpha": 16, "task_type": None, "bias": "none"}, "adapter_config.json"),
        ({"last_node_id": 3, "nodes": [], "links": [], "version": 0.4}, "ComfyUI"),
        ({"_class_name": "UNet2DConditionModel", "in_channels": 4}, "configuration of a model"),
        ({"project": {"name": "x"}, "tool": {}}, "pyproject.toml"),
        ({}, "it is empty"),
        ({"b": 1, "a": 2}, "it holds a, b"),
        ({"seed": 1, **dict.fromkeys("abcdefghi", 1)}, "it holds a, b"),
    ],
)
def test_what_is_not_a_recipe_is_refused_by_what_it_looks_like(data: dict[str, Any], looks_like: str) -> None:
    with pytest.raises(UserError) as caught:
        recipe_from_object(data, "file.json")
    assert looks_like in caught.value.message and "file.json" in caught.value.message and caught.value.hint


@pytest.mark.parametrize(
    "data",
    [
        {"learning_rate": 1e-3, "network_dim": 8, "max_train_epochs": 2, "text_encoder_lr": 0},
        {"learning_rate": 1e-3, "network_dim": 8, "max_train_epochs": 2},
        {"LoRA_type": "LyCORIS/LoHa", "learning_rate": 1e-3},
        {"LoRA_type": "LyCORIS/LoHa", "learning_rate": 1e-3, "unet_lr": 1e-3},
        {**Recipe().flat(), "unet_lr": 1e-4},
        SD_SCRIPTS,
        {**SD_SCRIPTS, "text_encoder_lr": 0, "unet_lr": 0.0},
        ONETRAINER,
        {"ss_network_module": "networks.lora", "ss_learning_rate": "0.001"},
    ],
)
def test_an_absent_key_never_trains_the_text_encoder(data: dict[str, Any]) -> None:
    assert recipe_from_object(data, "file").recipe.training.text_encoder_lr == 0


def test_kohyas_names_in_a_short_file_mean_what_they_say() -> None:
    loaded = recipe_from_object({"algo": "lokr", "max_train_epochs": 2, "max_resolution": "512,768", "odd": 1}, "file")
    assert (loaded.recipe.training.epoch, loaded.recipe.dataset.resolution_px) == (2, (512, 768))
    assert loaded.notices == ("Not known here: odd.",)
