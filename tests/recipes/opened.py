"""Opens data as a recipe file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lib_trainer.recipes.files import load_recipe
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
