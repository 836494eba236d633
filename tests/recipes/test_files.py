"""Recipe files: the shipped ones, our own, kohya_ss', and what an adapter file says of itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lib_trainer.adapter.metadata import RECIPE_KEY
from lib_trainer.config.recipe import Recipe
from lib_trainer.errors import ConfigError, UserError
from lib_trainer.recipes.files import load_recipe, presets, recipe_from_metadata, save_recipe
from lib_trainer.recipes.loaded import LoadedRecipe

# A file as the kohya_ss GUI saves it: numbers as text, empty fields, keys for the GUI itself.
GUI = {
    "LoRA_type": "LyCORIS/LoHa",
    "LyCORIS_preset": "full",
    "network_dim": 16,
    "network_alpha": 8,
    "conv_dim": "",
    "conv_alpha": "",
    "use_cp": True,
    "use_tucker": False,
    "learning_rate": 0.001,
    "unet_lr": "0.0001",
    "text_encoder_lr": "0",
    "max_resolution": "896,640",
    "optimizer": "AdamW8bit",
    "optimizer_args": '"weight_decay=0.1" "betas=0.9,0.99"',
    "lr_scheduler": "constant_with_warmup",
    "lr_warmup": "10",
    "epoch": 20,
    "max_train_epochs": "",
    "max_train_steps": "",
    "min_snr_gamma": "0",
    "noise_offset": "0.05",
    "noise_offset_type": "Original",
    "mixed_precision": "no",
    "save_precision": "float",
    "clip_skip": "2",
    "seed": "",
    "caption_extension": ".caption",
    "cache_latents": True,
    "keep_tokens": "1",
    "training_comment": "for a friend",
    "scale_weight_norms": 0,
    "xformers": "xformers",
}


KOHYAS_OWN = (("Kohya LoHa", "loha"), ("Kohya LoKr", "lokr"))


def load(tmp_path: Path, data: Any) -> LoadedRecipe:
    path = tmp_path / "recipe.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data), "utf-8")
    return load_recipe(path)


def gui(tmp_path: Path, **changes: Any) -> LoadedRecipe:
    return load(tmp_path, {**GUI, **changes})


def problems(tmp_path: Path, data: Any) -> dict[str, str]:
    return load(tmp_path, data).problems


def test_the_two_recipes_the_project_is_built_around() -> None:
    face, style = (load_recipe(path) for path in presets().values())
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
    assert list(presets()) == ["Face · LoHa · 8 GB", "Style · LoKr · 8 GB"]


@pytest.mark.parametrize("path", presets().values(), ids=lambda path: path.stem)
def test_a_shipped_recipe_holds_nothing_that_is_not_used(path: Path) -> None:
    loaded = load_recipe(path)
    assert loaded.notices == ()
    # kohya refuses these two together with cached latents; a person who opens the file there must not fall over it.
    data = json.loads(path.read_text("utf-8"))
    if data["color_aug"] or data["random_crop"]:
        assert not data["cache_latents_to_disk"]


def test_a_gui_file(tmp_path: Path) -> None:
    values = gui(tmp_path).recipe.flat()
    expected = {
        "algo": "loha",
        "network_dim": 16,
        "network_alpha": 8,
        "conv_dim": 16,
        "conv_alpha": 8,
        "use_tucker": True,
        "learning_rate": 1e-4,
        "text_encoder_lr": 0,
        "resolution_px": (896, 640),
        "optimizer": "AdamW8bit",
        "weight_decay": 0.1,
        "lr_scheduler": "constant",
        "lr_warmup": 10,
        "epoch": 20,
        "max_train_steps": 0,
        "min_snr_gamma": 0,
        "noise_offset": 0.05,
        "mixed_precision": "fp32",
        "save_precision": "fp32",
        "clip_skip": 2,
        "seed": 0,
        "caption_extension": ".caption",
        "keep_tokens": 1,
        "comment": "for a friend",
    }
    assert expected.items() <= values.items()


def test_everything_else_is_said(tmp_path: Path) -> None:
    notices = gui(tmp_path, scale_weight_norms=6, dora_wd=True, my_own_key=1, another=2).notices
    assert "Not known here: another, my_own_key." in notices
    assert (
        "scale_weight_norms = 6 is not done here: max_grad_norm and weight_decay are what limits the weights."
        in notices
    )
    assert "dora_wd = True is not done here: WebUIs read DoRA in different ways." in notices
    assert "optimizer_args = betas=0.9,0.99 is not done here." in notices
    assert len(notices) == 4


@pytest.mark.parametrize(
    ("kind", "algo"),
    [
        ("LyCORIS/LoHa", "loha"),
        ("LyCORIS/LoKr", "lokr"),
        ("LyCORIS/LoCon", "locon"),
        ("Kohya LoCon", "locon"),
        *KOHYAS_OWN,
    ],
)
def test_the_kinds_of_adapter(tmp_path: Path, kind: str, algo: str) -> None:
    assert gui(tmp_path, LoRA_type=kind).recipe.adapter.algo == algo


@pytest.mark.parametrize(("kind", "algo"), KOHYAS_OWN)
@pytest.mark.parametrize(("given", "conv"), [("", 0), (0, 0), ("0", 0), (None, 0), ("8", 8), (8, 8)])
def test_kohyas_own_networks_leave_convolutions_alone_unless_told(
    tmp_path: Path, kind: str, algo: str, given: object, conv: int
) -> None:
    adapter = gui(tmp_path, LoRA_type=kind, conv_dim=given, conv_alpha="4").recipe.adapter
    assert (adapter.algo, adapter.network_dim, adapter.conv_dim) == (algo, 16, conv)


def test_kohyas_alpha_of_zero_is_the_rank(tmp_path: Path) -> None:
    assert gui(tmp_path, network_alpha=0).recipe.adapter.network_alpha == 16
    adapter = gui(tmp_path, LoRA_type="Kohya LoHa", conv_dim=8, conv_alpha="").recipe.adapter
    assert (adapter.conv_dim, adapter.conv_alpha) == (8, 1)


def test_additional_parameters_are_read_as_fields(tmp_path: Path) -> None:
    options = '--min_snr_gamma=5 --lr_scheduler_args "T_max=10" "x=1" --network_train_unet_only --odd'
    loaded = gui(tmp_path, additional_parameters=options)
    assert (loaded.recipe.loss.min_snr_gamma, loaded.recipe.training.text_encoder_lr) == (5, 0)
    assert any(text.startswith("lr_scheduler_args = T_max=10 x=1 is not done here") for text in loaded.notices)
    assert "Not known here: odd." in loaded.notices


def test_one_wrong_value_refuses_only_itself(tmp_path: Path) -> None:
    loaded = gui(tmp_path, lr_scheduler="piecewise_constant", noise_offset=3)
    assert set(loaded.problems) == {"lr_scheduler", "noise_offset"}
    assert loaded.recipe.adapter.network_dim == 16
    with pytest.raises(ConfigError) as caught:
        loaded.complete({"lr_scheduler": "constant", "output_name": "a", "train_data_dir": "b", "epoch": "x"})
    assert set(caught.value.problems) == {"noise_offset", "epoch"}
    mended = loaded.complete({"lr_scheduler": "linear", "noise_offset": "0.1"}, needs_name=False)
    assert (mended.training.lr_scheduler, mended.loss.noise_offset) == ("linear", 0.1)


def test_a_standard_lora_leaves_convolutions_alone(tmp_path: Path) -> None:
    loaded = gui(tmp_path, LoRA_type="Standard", conv_dim=8)
    assert (loaded.recipe.adapter.algo, loaded.recipe.adapter.conv_dim) == ("locon", 0)
    assert any("Standard" in text for text in loaded.notices)


def test_convolutions_can_be_switched_off(tmp_path: Path) -> None:
    assert gui(tmp_path, conv_dim="0").recipe.adapter.conv_dim == 0


@pytest.mark.parametrize(("cp", "tucker", "expected"), [(False, True, True), ("False", 0, False), (True, None, True)])
def test_tucker_by_either_name(tmp_path: Path, cp: object, tucker: object, expected: bool) -> None:
    assert gui(tmp_path, use_cp=cp, use_tucker=tucker).recipe.adapter.use_tucker is expected


@pytest.mark.parametrize(
    ("rates", "unet", "text"),
    [
        ({"unet_lr": 2e-4, "text_encoder_lr": 5e-5}, 2e-4, 5e-5),
        ({"unet_lr": 2e-4, "text_encoder_lr": 0}, 2e-4, 0),
        ({"unet_lr": 0, "text_encoder_lr": 5e-5}, 0, 5e-5),
        ({"unet_lr": 0, "text_encoder_lr": 0}, 1e-3, 1e-3),
        ({"unet_lr": 0, "text_encoder_lr": 0, "additional_parameters": "--network_train_unet_only"}, 1e-3, 0),
    ],
)
def test_learning_rates(tmp_path: Path, rates: dict[str, Any], unet: float, text: float) -> None:
    training = gui(tmp_path, **rates).recipe.training
    assert (training.learning_rate, training.text_encoder_lr) == (unet, text)


def test_a_single_learning_rate_is_the_unets(tmp_path: Path) -> None:
    training = load(tmp_path, {"LoRA_type": "LyCORIS/LoHa", "learning_rate": 3e-5}).recipe.training
    assert (training.learning_rate, training.text_encoder_lr) == (3e-5, 0)


@pytest.mark.parametrize(
    ("given", "steps", "epoch"),
    [
        ({"epoch": 5}, 0, 5),
        ({"epoch": 5, "max_train_steps": "300"}, 300, 5),
        ({"epoch": 1, "max_train_epochs": "16", "max_train_steps": 300}, 0, 16),
    ],
)
def test_how_long(tmp_path: Path, given: dict[str, Any], steps: int, epoch: int) -> None:
    training = gui(tmp_path, **given).recipe.training
    assert (training.max_train_steps, training.epoch) == (steps, epoch)


def test_warm_up_in_steps(tmp_path: Path) -> None:
    assert gui(tmp_path, lr_warmup_steps=50, max_train_steps=200).recipe.training.lr_warmup == 25
    loaded = gui(tmp_path, lr_warmup_steps=50)
    assert loaded.recipe.training.lr_warmup == 10 and any("lr_warmup_steps" in text for text in loaded.notices)


@pytest.mark.parametrize(
    ("warmup", "percent"), [(0.1, 10), ("0.05", 5), (0, 10), ("0", 10), (1, 0.1), (100, 10), (1000, 100)]
)
def test_warm_up_below_one_step_is_a_share(tmp_path: Path, warmup: object, percent: float) -> None:
    training = gui(tmp_path, lr_warmup_steps=warmup, max_train_steps=1000).recipe.training
    assert training.lr_warmup == pytest.approx(percent)


@pytest.mark.parametrize("warmup", [10**400, -(10**400), "1e999", "many", [3], 5000])
def test_a_warm_up_that_cannot_be_is_said_at_its_field(tmp_path: Path, warmup: object) -> None:
    loaded = gui(tmp_path, lr_warmup_steps=warmup, max_train_steps=1000)
    assert set(loaded.problems) == {"lr_warmup"}
    assert all(len(text) < 300 for text in loaded.problems.values())


def test_stand_ins_are_said(tmp_path: Path) -> None:
    loaded = gui(tmp_path, optimizer="DAdaptAdam", lr_scheduler="polynomial", optimizer_args="decouple=True")
    assert (loaded.recipe.training.optimizer, loaded.recipe.training.lr_scheduler) == ("Prodigy", "linear")
    assert sum("stands in" in text for text in loaded.notices) == 2
    assert not any("decouple" in text for text in loaded.notices)
    assert gui(tmp_path, optimizer="prodigy").recipe.training.optimizer == "Prodigy"


def test_the_kind_of_noise_decides_which_is_used(tmp_path: Path) -> None:
    multires = {"multires_noise_iterations": 6, "multires_noise_discount": 0.2}
    loaded = gui(tmp_path, noise_offset_type="Multires", **multires)
    loss = loaded.recipe.loss
    assert (loss.noise_offset, loss.multires_noise_iterations, loss.multires_noise_discount) == (0, 6, 0.2)
    assert any("noise_offset = 0.05 is not used" in text for text in loaded.notices)
    loaded = gui(tmp_path, **multires)
    assert (loaded.recipe.loss.noise_offset, loaded.recipe.loss.multires_noise_iterations) == (0.05, 0)
    assert any("multires_noise_iterations = 6 is not used" in text for text in loaded.notices)


def test_noise_and_loss(tmp_path: Path) -> None:
    values = {
        "loss_type": "smooth_l1",
        "huber_schedule": "exponential",
        "huber_c": 0.2,
        "huber_scale": 2,
        "debiased_estimation_loss": True,
        "scale_v_pred_loss_like_noise_pred": True,
        "v_pred_like_loss": 0.5,
        "noise_offset_random_strength": True,
        "adaptive_noise_scale": 0.005,
        "ip_noise_gamma": 0.1,
        "ip_noise_gamma_random_strength": True,
        "min_timestep": 100,
        "max_timestep": 900,
    }
    loaded = gui(tmp_path, **values)
    assert values.items() <= loaded.recipe.flat().items() and not loaded.problems
    # kohya_ss hands a max_timestep of 0 on as none.
    assert gui(tmp_path, max_timestep=0).recipe.loss.max_timestep == 1000
    assert set(gui(tmp_path, min_timestep=900, max_timestep=100).problems) == {"min_timestep"}


def test_bucket_steps_of_one_pixel(tmp_path: Path) -> None:
    loaded = gui(tmp_path, bucket_reso_steps=1)
    assert loaded.recipe.dataset.bucket_reso_steps == 64 and any("multiples of 8" in text for text in loaded.notices)


def test_everything_wrong_is_said_at_once(tmp_path: Path) -> None:
    wrong = {"LoRA_type": "LyCORIS/iA3", "optimizer": "Lion", "network_dim": "big", "noise_offset": 7, "clip_skip": 99}
    found = problems(tmp_path, {**GUI, **wrong})
    assert set(found) == {"algo", "optimizer", "network_dim", "conv_dim", "noise_offset", "clip_skip"}
    assert load(tmp_path, {**GUI, **wrong}).recipe.training.learning_rate == 1e-4
    assert "LyCORIS/iA3" in found["algo"]


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
    assert loaded.notices == (
        "text_encoder_lr is not in the file: the text encoder is left alone.",
        "optimizer_args = betas=(0.9, 0.99) is not done here.",
    )


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
