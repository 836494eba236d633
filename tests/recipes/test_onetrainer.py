"""OneTrainer's configuration JSON."""

from __future__ import annotations

from typing import Any

import pytest

from lib_trainer.recipes.files import recipe_from_object
from lib_trainer.recipes.loaded import LoadedRecipe

CONFIG: dict[str, Any] = {
    "__version": 10,
    "training_method": "LORA",
    "model_type": "STABLE_DIFFUSION_XL_10_BASE",
    "peft_type": "LOHA",
    "lora_rank": 12,
    "lora_alpha": 6.0,
    "learning_rate": 3e-4,
    "learning_rate_scheduler": "COSINE",
    "learning_rate_warmup_steps": 0.1,
    "epochs": 7,
    "batch_size": 2,
    "gradient_accumulation_steps": 3,
    "resolution": "768",
    "optimizer": {"optimizer": "ADAMW_8BIT", "weight_decay": 0.02, "fused_back_pass": False},
    "loss_weight_fn": "MIN_SNR_GAMMA",
    "loss_weight_strength": 5.0,
    "offset_noise_weight": 0.05,
    "train_dtype": "BFLOAT_16",
    "output_dtype": "FLOAT_16",
    "output_model_destination": "models\\jeff.safetensors",
    "save_every": 2,
    "save_every_unit": "EPOCH",
    "unet": {"train": True, "learning_rate": None},
    "text_encoder": {"train": False},
    "text_encoder_2": {"train": False},
    "clip_grad_norm": 1.0,
    "concepts": [],
}


def load(**changes: Any) -> LoadedRecipe:
    return recipe_from_object({**CONFIG, **changes}, "config.json")


def test_a_configuration() -> None:
    loaded = load()
    expected = {
        "algo": "loha",
        "network_dim": 12,
        "network_alpha": 6,
        "conv_dim": 12,
        "conv_alpha": 6,
        "learning_rate": 3e-4,
        "text_encoder_lr": 0,
        "lr_scheduler": "cosine",
        "lr_warmup": 10,
        "epoch": 7,
        "train_batch_size": 2,
        "gradient_accumulation_steps": 3,
        "resolution_px": (768, 768),
        "optimizer": "AdamW8bit",
        "weight_decay": 0.02,
        "min_snr_gamma": 5,
        "noise_offset": 0.05,
        "mixed_precision": "bf16",
        "save_precision": "fp16",
        "output_name": "jeff",
        "save_every_n_epochs": 2,
    }
    assert expected.items() <= loaded.recipe.flat().items()
    assert loaded.problems == {}
    assert loaded.notices == ("Not used here: __version, concepts.",)


def test_kinds_of_adapter() -> None:
    lokr = load(peft_type="LOKR", lokr_dim=24, lokr_decompose_factor=8, lokr_full_matrix=True).recipe.adapter
    assert (lokr.algo, lokr.network_dim, lokr.conv_dim, lokr.factor, lokr.full_matrix) == ("lokr", 24, 24, 8, True)
    assert load(peft_type="LORA").recipe.adapter.algo == "locon"
    assert "OFT_2" in load(peft_type="OFT_2").problems["algo"]
    assert "FINE_TUNE" in load(training_method="FINE_TUNE").problems["algo"]


def test_noise_levels_and_weighting() -> None:
    loss = load(min_noising_strength=0.1, max_noising_strength=0.75, loss_weight_fn="DEBIASED_ESTIMATION").recipe.loss
    assert (loss.min_timestep, loss.max_timestep) == (100, 750)
    assert (loss.debiased_estimation_loss, loss.min_snr_gamma) == (True, 0)


def test_text_encoders_learn_where_the_file_says_so() -> None:
    assert load(text_encoder={"train": True}).recipe.training.text_encoder_lr == 3e-4
    assert load(text_encoder={"train": True, "learning_rate": 1e-5}).recipe.training.text_encoder_lr == 1e-5
    absent = load(text_encoder={})
    assert absent.recipe.training.text_encoder_lr == 0 and any("left alone" in text for text in absent.notices)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"huber_strength": 1.0}, "huber_strength = 1.0"),
        ({"lora_decompose": True}, "lora_decompose = True"),
        ({"resolution": "512,768"}, "512,768"),
        ({"loss_weight_fn": "P2"}, "loss_weight_fn = P2"),
        ({"learning_rate_warmup_steps": 200}, "learning_rate_warmup_steps = 200"),
    ],
)
def test_what_is_not_done_is_said(changes: dict[str, Any], said: str) -> None:
    assert any(said in text for text in load(**changes).notices)


def test_choices_that_are_not_here_are_said_at_their_fields() -> None:
    loaded = load(learning_rate_scheduler="CUSTOM", optimizer={"optimizer": "A-B"})
    assert set(loaded.problems) == {"lr_scheduler", "optimizer"}
    assert loaded.recipe.adapter.network_dim == 12


def test_a_unet_that_is_not_trained_is_left_alone() -> None:
    loaded = load(unet={"train": False, "learning_rate": 1e-4}, text_encoder={"train": True})
    assert loaded.recipe.training.learning_rate == 0 and loaded.recipe.training.text_encoder_lr == 3e-4


def test_skipped_layers_are_counted_from_1_here() -> None:
    """OneTrainer counts the layers that are left out; clip_skip names the last that is used."""
    assert [load(text_encoder_layer_skip=skip).recipe.training.clip_skip for skip in (1, 2)] == [2, 3]


def test_an_additional_embedding() -> None:
    entry = {"placeholder": "<jeff>", "train": True, "token_count": 3, "initial_embedding_text": "a man"}
    loaded = load(additional_embeddings=[entry, {"train": False}, entry], embedding_learning_rate=2e-3)
    embedding = loaded.recipe.embedding
    assert (embedding.num_vectors_per_token, embedding.token_string, embedding.init_word) == (3, "jeff", "a man")
    assert embedding.embedding_lr == 2e-3
    assert "additional_embeddings: the first of 2 is trained." in loaded.notices
    assert load(additional_embeddings=[entry]).recipe.embedding.embedding_lr == 3e-4
    assert load(additional_embeddings=[]).recipe.embedding.num_vectors_per_token == 0
    left = load(additional_embeddings=[{**entry, "is_output_embedding": True}], bundle_additional_embeddings=False)
    assert sum("not done here" in notice for notice in left.notices) == 2
