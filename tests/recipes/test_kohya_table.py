"""docs/recipes.md and the table behind it against what the reader does with each field, and with a checkout's names."""

from __future__ import annotations

import ast
import os
from pathlib import Path
from typing import Any

import pytest

from lib_trainer.recipes.files import recipe_from_object
from lib_trainer.recipes.kohya_table import FIELDS
from lib_trainer.recipes.loaded import LoadedRecipe

BASE = {
    "LoRA_type": "LyCORIS/LoKr",
    "network_dim": 4,
    "conv_dim": 2,
    "conv_alpha": 2,
    "learning_rate": 1e-3,
    "unet_lr": 2e-3,
    "text_encoder_lr": 3e-3,
    "max_train_steps": 100,
    "noise_offset": 0.1,
    "noise_offset_type": "Original",
    "max_resolution": "512,512",
}
# A value that differs from BASE and from every default, for the fields whose kind does not give it away.
VALUES: dict[str, Any] = {
    "LoRA_type": "LyCORIS/LoHa",
    "max_resolution": "640,512",
    "noise_offset_type": "Multires",
    "loss_type": "huber",
    "timestep_sampling": "uniform",
    "model_prediction_type": "sigma_scaled",
    "huber_schedule": "constant",
    "v_pred_like_loss": 0.5,
    "adaptive_noise_scale": 0.5,
    "ip_noise_gamma": 0.1,
    "multires_noise_discount": 0.5,
    "max_timestep": 900,
    "mixed_precision": "no",
    "save_precision": "float",
    "optimizer": "Prodigy",
    "use_8bit_adam": False,
    "optimizer_args": "weight_decay=0.5",
    "lr_scheduler": "linear",
    "lr_warmup_steps": 50,
    "lr_scheduler_args": "min_lr_rate=0.3",
    "additional_parameters": "--min_snr_gamma 3",
    "caption_extension": ".caption",
    "bucket_reso_steps": 32,
    "max_bucket_reso": 2048,
    "min_bucket_reso": 128,
    "clip_skip": 2,
    "caption_dropout_rate": 0.5,
    "min_snr_gamma": 5,
    "noise_offset": 0.2,
    "factor": 8,
    "unet_lr": 5e-3,
    "text_encoder_lr": 6e-3,
    "learning_rate": 7e-3,
    "LyCORIS_preset": "attn-mlp",
    **dict.fromkeys(("down_lr_weight", "mid_lr_weight", "up_lr_weight"), "0.5"),
    **dict.fromkeys(("block_dims", "block_alphas", "conv_block_dims", "conv_block_alphas"), ",".join(["3"] * 25)),
}
# What a field needs beside it to count.
NEEDED = {
    "multires_noise_iterations": {"noise_offset_type": "Multires"},
    "lr_scheduler_args": {"lr_scheduler": "cosine_with_min_lr"},
    "dim_from_weights": {"network_weights": "style"},
}
SWITCHES = (
    "decompose_both use_cp use_tucker network_train_unet_only network_train_text_encoder_only cache_latents_to_disk"
    " enable_bucket bucket_no_upscale gradient_checkpointing shuffle_caption color_aug flip_aug random_crop masked_loss"
    " debiased_estimation_loss scale_v_pred_loss_like_noise_pred noise_offset_random_strength"
    " ip_noise_gamma_random_strength dim_from_weights rank_dropout_scale dora_wd train_norm"
)
TEXTS = "train_data_dir reg_data_dir output_name training_comment sample_prompts network_weights lora_network_weights"


def load(**changes: Any) -> LoadedRecipe:
    data = {**BASE, **changes}
    if "learning_rate" in changes:  # counts where no special rate is given
        del data["unet_lr"], data["text_encoder_lr"]
    return recipe_from_object(data, "file")


def other_value(name: str) -> Any:
    if name in SWITCHES.split():
        return not load().recipe.flat().get(name, False)
    if name in TEXTS.split():
        return "other"
    return VALUES.get(name, 3 if "dropout" not in name else 0.25)


@pytest.mark.parametrize(
    "row", [r for r in FIELDS.values() if r.fate in ("used", "approximated")], ids=lambda r: r.name
)
def test_a_field_that_is_used_changes_the_recipe(row: Any) -> None:
    base = load(learning_rate=1e-3) if row.name == "learning_rate" else load()
    if row.name == "use_8bit_adam":  # the older name of optimizer = AdamW8bit, which is the default here
        assert load(use_8bit_adam=True).recipe.training.optimizer == "AdamW8bit"
        return
    others = NEEDED.get(row.name, {})
    base = load(**others) if others else base
    changed = load(**others, **{row.name: other_value(row.name)})
    assert changed.recipe != base.recipe and not changed.problems


@pytest.mark.parametrize("row", [r for r in FIELDS.values() if r.fate in ("refused", "ignored")], ids=lambda r: r.name)
def test_a_field_that_is_not_used_changes_nothing_and_is_said(row: Any) -> None:
    base, changed = load(), load(**{row.name: "7"})
    assert changed.recipe == base.recipe
    new = [text for text in changed.notices if text not in base.notices]
    if row.usual == ("*",):
        assert new == []
    else:
        assert len(new) == 1 and row.name in new[0] and row.why in new[0]
    for usual in (*row.usual, "", 0, False, "0.0", None):
        if usual != "*":
            assert load(**{row.name: usual}) == base


def test_the_page_is_made_from_the_table() -> None:
    from lib_trainer.cli.kohya_fields import list_kohya_fields

    page = Path(__file__).parents[2] / "docs" / "recipes.md"
    assert page.read_text("utf-8") == list_kohya_fields(as_markdown=True).lines[0] + "\n", (
        "write it anew: python -m lib_trainer settings --kohya --markdown > docs/recipes.md"
    )
    for name in FIELDS:
        assert f"`{name}`" in page.read_text("utf-8")


def test_every_reason_is_short_and_plain() -> None:
    for row in FIELDS.values():
        assert row.why or row.fate == "used", row.name
        assert len(row.why) < 90 and not row.why.endswith("."), row.name


@pytest.mark.skipif("KOHYA_SS_DIR" not in os.environ, reason="KOHYA_SS_DIR does not name a checkout of kohya_ss")
def test_no_field_of_kohya_ss_is_missing() -> None:
    source = Path(os.environ["KOHYA_SS_DIR"], "kohya_gui", "lora_gui.py").read_text("utf-8")
    functions = {node.name: node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)}
    names = {argument.arg for argument in functions["save_configuration"].args.args} - {"file_path"}
    assert names - FIELDS.keys() == set()
