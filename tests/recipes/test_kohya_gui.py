"""Files of the kohya_ss GUI."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lib_trainer.errors import ConfigError
from tests.recipes.opened import GUI, KOHYAS_OWN, gui, load, problems


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
    notices = gui(tmp_path, use_scalar=True, weighted_captions=True, my_own_key=1, another=2).notices
    assert "Not known here: another, my_own_key." in notices
    assert "use_scalar = True is not done here: the adapter has no extra scalar." in notices
    assert "weighted_captions = True is not done here: brackets in captions are plain text." in notices
    assert len(notices) == 3


def test_norms_are_trained_by_lycoris_types_alone(tmp_path: Path) -> None:
    assert gui(tmp_path, LoRA_type="LyCORIS/LoHa", train_norm=True).recipe.adapter.train_norm
    assert not gui(tmp_path, LoRA_type="Standard", train_norm=True).recipe.adapter.train_norm


def test_a_dora_of_kohya_takes_the_norm_per_output_unless_the_file_says_otherwise(tmp_path: Path) -> None:
    loaded = gui(tmp_path, dora_wd=True)
    assert loaded.recipe.adapter.dora_wd and loaded.recipe.adapter.wd_on_output
    assert any("WebUIs draw it exactly with wd_on_output off" in notice for notice in loaded.notices)
    assert not gui(tmp_path, dora_wd=True, wd_on_output=False).recipe.adapter.wd_on_output


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
        ({"unet_lr": 2e-4, "text_encoder_lr": 5e-5, "network_train_text_encoder_only": True}, 0, 5e-5),
        ({"unet_lr": 2e-4, "text_encoder_lr": 0, "network_train_text_encoder_only": True}, 0, 1e-3),
    ],
)
def test_learning_rates(tmp_path: Path, rates: dict[str, Any], unet: float, text: float) -> None:
    training = gui(tmp_path, **rates).recipe.training
    assert (training.learning_rate, training.text_encoder_lr) == (unet, text)


@pytest.mark.parametrize("off", [0, 0.0, "0", "0.0", False, "False", "", " ", None, "None"])
def test_kohyas_ways_to_leave_a_field_off(tmp_path: Path, off: object) -> None:
    rates = {"unet_lr": off, "text_encoder_lr": off}
    training = gui(tmp_path, **rates, max_train_epochs=off, max_train_steps=300).recipe.training
    assert (training.learning_rate, training.text_encoder_lr, training.max_train_steps) == (1e-3, 1e-3, 300)


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
    loaded = gui(tmp_path, optimizer="DAdaptation", optimizer_args="decouple=True d0=1e-5")
    assert loaded.recipe.training.optimizer == "DAdaptAdam"
    assert sum("replaces it" in text for text in loaded.notices) == 1
    # What is on here anyway is not repeated.
    assert loaded.recipe.training.optimizer_args == "d0=1e-5"
    assert gui(tmp_path, optimizer="prodigy").recipe.training.optimizer == "Prodigy"


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("Lion", "Lion"),
        ("pytorch_optimizer.CAME", "CAME"),
        ("pytorch_optimizer.optimizer.tiger.Tiger", "Tiger"),
        ("bitsandbytes.optim.AdEMAMix8bit", "AdEMAMix8bit"),
        ("AdamWScheduleFree", "AdamWScheduleFree"),
        ("PagedAdamW8bit", "PagedAdamW8bit"),
        ("PagedLion8bit", "Lion8bit"),
    ],
)
def test_optimizers_by_kohyas_names(tmp_path: Path, name: str, ours: str) -> None:
    training = gui(tmp_path, optimizer=name, optimizer_args="weight_decay=0.2 betas=0.9,0.95").recipe.training
    assert (training.optimizer, training.weight_decay, training.optimizer_args) == (ours, 0.2, "betas=0.9,0.95")


def test_schedules_and_their_options(tmp_path: Path) -> None:
    options = {
        "lr_scheduler": "cosine_with_min_lr",
        "lr_scheduler_args": "min_lr_rate=0.2 odd=1",
        "lr_scheduler_power": 2,
    }
    loaded = gui(tmp_path, **options)
    training = loaded.recipe.training
    assert (training.lr_scheduler, training.lr_scheduler_args) == ("cosine_with_min_lr", "min_lr_rate=0.2")
    assert training.lr_scheduler_power == 2
    assert "lr_scheduler_args = odd=1 is not done here." in loaded.notices
    assert gui(tmp_path, lr_scheduler="polynomial").recipe.training.lr_scheduler == "polynomial"


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


@pytest.mark.parametrize("augmentation", ["color_aug", "random_crop"])
def test_augmented_pictures_are_cached_although_kohyas_file_cannot_ask_for_it(
    augmentation: str, tmp_path: Path
) -> None:
    off = {"color_aug": False, "random_crop": False, "cache_latents_to_disk": False}
    assert not gui(tmp_path, **off).recipe.dataset.cache_latents_to_disk
    loaded = gui(tmp_path, **{**off, augmentation: "true"})
    assert loaded.recipe.dataset.cache_latents_to_disk and not loaded.notices


def test_everything_wrong_is_said_at_once(tmp_path: Path) -> None:
    wrong = {
        "LoRA_type": "LyCORIS/iA3",
        "optimizer": "no-such",
        "network_dim": "big",
        "noise_offset": 7,
        "clip_skip": 99,
    }
    found = problems(tmp_path, {**GUI, **wrong})
    assert set(found) == {"algo", "optimizer", "network_dim", "conv_dim", "noise_offset", "clip_skip"}
    assert load(tmp_path, {**GUI, **wrong}).recipe.training.learning_rate == 1e-4
    assert "LyCORIS/iA3" in found["algo"]


def test_settings_of_flow_matching_count_in_files_for_such_models(tmp_path: Path) -> None:
    values = {"discrete_flow_shift": 3, "guidance_scale": 3.5, "timestep_sampling": "sigmoid"}
    plain = gui(tmp_path, **values, flux1_checkbox=False)
    assert plain == gui(tmp_path)
    loaded = gui(tmp_path, **values, flux1_checkbox=True, LoRA_type="Flux1")
    assert values.items() <= loaded.recipe.flat().items()
    assert (loaded.recipe.adapter.algo, loaded.recipe.adapter.conv_dim) == ("locon", 0)
    assert any("the file is for FLUX.1" in text for text in loaded.notices)
    by_size = gui(tmp_path, timestep_sampling="flux2_shift").recipe.flow.timestep_sampling
    assert by_size == "flux_shift", "musubi-tuner's name"


@pytest.mark.parametrize("rates", [[1e-5, 2e-5], [1e-5, 0], [0, 2e-5]])
def test_each_text_encoder_of_sdxl_has_the_rate_of_its_place_in_the_list(tmp_path: Path, rates: list[float]) -> None:
    training = gui(tmp_path, text_encoder_lr=rates).recipe.training
    assert [training.text_encoder_lr, training.text_encoder2_lr] == rates


def test_weights_of_blocks_may_be_one_number(tmp_path: Path) -> None:
    loaded = gui(tmp_path, mid_lr_weight=0.5)
    assert loaded.recipe.flat()["mid_lr_weight"] == "0.5" and "mid_lr_weight" not in loaded.problems
