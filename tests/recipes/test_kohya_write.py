"""Our recipes as kohya_ss' JSON, and back."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest

from lib_trainer.cli.main import main
from lib_trainer.config.optimization import SCHEDULE_OPTIONS
from lib_trainer.config.recipe import Recipe, field_of, field_types
from lib_trainer.recipes.files import load_recipe, presets, recipe_from_object
from lib_trainer.recipes.formats import recognize
from lib_trainer.recipes.kohya_table import FIELDS
from lib_trainer.recipes.kohya_write import kohya_values


def random_value(name: str, random: Random) -> Any:
    """A value that a field may hold."""
    kind, item = field_types()[name][1], field_of(name)
    if item.metadata["choices"]:
        return random.choice(item.metadata["choices"])
    if kind is bool:
        return random.random() < 0.5
    if kind in (int, float):
        low = item.metadata["low"] if item.metadata["low"] is not None else 0
        high = min(item.metadata["high"] or 100, low + 100)
        return random.randint(int(low), int(high)) if kind is int else round(random.uniform(low, high), 4)
    return random.choice(["", "jeff", "ä b"]) if kind is str else (64 * random.randint(4, 9), 512)


def random_recipe(random: Random) -> Recipe:
    values = {name: random_value(name, random) for name in field_types()}
    values |= {"bucket_reso_steps": random.choice([8, 32, 64, 128]), "clip_skip": random.randint(1, 12)}
    values["caption_extension"] = random.choice([".txt", ".caption"])
    if values["multires_noise_iterations"]:  # either of them there
        values["noise_offset"] = 0
    values["optimizer_args"] = random.choice(["", "betas=0.9,0.99 eps=1e-6"])
    options = SCHEDULE_OPTIONS.get(values["lr_scheduler"], {})
    values["lr_scheduler_args"] = " ".join(f"{name}=0.3" for name in options)
    recipe = Recipe().with_values(values)
    if recipe.dataset.color_aug or recipe.dataset.random_crop:  # kohya's files cannot ask for it with these
        recipe = recipe.with_values({"cache_latents_to_disk": True})
    return recipe


def test_what_is_written_comes_back_as_it_was() -> None:
    random = Random(3)
    for _ in range(60):
        recipe = random_recipe(random)
        values, _ = kohya_values(recipe)
        data = json.loads(json.dumps(values))
        assert recognize(data, "file") == "kohya_gui"
        back = recipe_from_object(data, "file").recipe.flat()
        assert {name: (was, back[name]) for name, was in recipe.flat().items() if back[name] != was} == {}


@pytest.mark.parametrize("path", presets().values(), ids=lambda path: path.stem)
def test_the_shipped_recipes_come_back_without_a_word(path: Path) -> None:
    recipe = load_recipe(path).recipe
    values, notices = kohya_values(recipe)
    loaded = recipe_from_object(values, "file")
    assert loaded.recipe == recipe and loaded.notices == ()
    assert all("kohya_ss does not have" in text or "kohya refuses it" in text for text in notices)


def test_the_fields_are_kohyas_and_switch_off_what_is_not_done_here() -> None:
    values, _ = kohya_values(Recipe())
    assert values.keys() <= FIELDS.keys()
    for name, row in FIELDS.items():
        assert row.fate != "refused" or name not in values or row.is_usual(values[name]), name
    # kohya_ss keeps what its page held before for every field that a file leaves out.
    older = {"lora_network_weights", "stop_text_encoder_training_pct", "conv_dims", "conv_alphas"}
    older.add("flux1_checkbox")  # what the checkpoint is, a person says there
    assert {name for name, row in FIELDS.items() if row.fate == "refused"} - values.keys() <= older


def test_what_kohya_ss_lacks_is_said() -> None:
    both = {"multires_noise_iterations": 6, "noise_offset": 0.1}
    recipe = Recipe().with_values({"full_matrix": True, "color_aug": True, "cache_latents_to_disk": True, **both})
    values, notices = kohya_values(recipe)
    assert values["full_matrix"] is True and not values["cache_latents"]
    assert len(notices) == 4 and "full_matrix" in notices[0]


def test_constant_with_a_warm_up_has_its_own_name_there() -> None:
    values, _ = kohya_values(Recipe().with_values({"lr_scheduler": "constant", "lr_warmup": 5}))
    assert values["lr_scheduler"] == "constant_with_warmup"
    values, _ = kohya_values(Recipe().with_values({"lr_scheduler": "constant", "lr_warmup": 0}))
    assert values["lr_scheduler"] == "constant"


def test_a_text_encoder_alone_has_its_rate_as_the_general_one_too() -> None:
    values, _ = kohya_values(Recipe().with_values({"learning_rate": 0, "text_encoder_lr": 5e-5}))
    assert (values["learning_rate"], values["unet_lr"], values["text_encoder_lr"]) == (5e-5, 0, 5e-5)


@pytest.mark.parametrize("augmentation", ["color_aug", "random_crop"])
def test_latents_are_not_cached_there_with_what_changes_them(augmentation: str) -> None:
    assert kohya_values(Recipe())[0]["cache_latents"]
    assert not kohya_values(Recipe().with_values({augmentation: True}))[0]["cache_latents"]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kohya, ours = tmp_path / "kohya.json", tmp_path / "ours.json"
    assert main(["save-recipe", "loha_face_config_8gb", str(kohya), "--set", "network_dim=12", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["path"] == str(kohya)
    assert json.loads(kohya.read_text("utf-8"))["LoRA_type"] == "LyCORIS/LoHa"
    assert main(["save-recipe", str(kohya), str(ours), "--format", "ours"]) == 0
    assert load_recipe(ours) == load_recipe(kohya)
    assert load_recipe(ours).recipe.adapter.network_dim == 12
    assert main(["save-recipe", str(kohya), str(ours), "--set", "network_dim=0"]) == 2
    assert "network_dim" in capsys.readouterr().err
