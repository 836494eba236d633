from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lib_trainer.adapter.attach import Adapter
from lib_trainer.adapter.io import adapter_tensors, copy_adapter, read_adapter, read_metadata, save_adapter
from lib_trainer.adapter.metadata import RECIPE_KEY
from lib_trainer.config.recipe import Recipe
from lib_trainer.errors import UserError
from lib_trainer.training.saving import Saving
from tests.adapter.layers import OPERATIONS, RECIPES, lively_factors


def adapter_of(recipe: str) -> Adapter:
    names = ("linear", "1x1", "3x3")
    return Adapter({f"lora_unet_{i}": lively_factors(recipe, OPERATIONS[n], i) for i, n in enumerate(names)})


@pytest.mark.parametrize("recipe", list(RECIPES))
def test_what_was_written_is_read_back(recipe: str, tmp_path: Path) -> None:
    adapter, path = adapter_of(recipe), tmp_path / "a b.safetensors"
    save_adapter(path, adapter_tensors(adapter, "fp32"), {"ss_output_name": "a b"})
    read = read_adapter(path)
    assert read.metadata["ss_output_name"] == "a b"
    assert len(read.metadata["sshs_model_hash"]) == 64
    assert read.unmatched == ()
    assert list(read.factors) == list(adapter.layers)
    for name, factors in adapter.layers.items():
        torch.testing.assert_close(read.factors[name].delta(), factors.float().delta(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("recipe", ["loha", "loha tucker", "lokr", "lokr both", "locon", "locon tucker"])
def test_a_file_without_alpha_is_not_scaled(recipe: str, tmp_path: Path) -> None:
    """Foreign files may lack it: every reader takes it for the rank, so that alpha / rank is 1."""
    adapter = adapter_of(recipe)
    tensors = {key: value for key, value in adapter_tensors(adapter, "fp32").items() if not key.endswith(".alpha")}
    save_adapter(tmp_path / "a", tensors, {})
    for name, factors in read_adapter(tmp_path / "a").factors.items():
        assert factors.scale == 1
        unscaled = adapter.layers[name].float().delta() / adapter.layers[name].scale
        torch.testing.assert_close(factors.delta(), unscaled, rtol=1e-5, atol=1e-6)


def test_alpha_of_a_huge_rank_survives_half_precision(tmp_path: Path) -> None:
    adapter = adapter_of("lokr full")
    adapter.layers["lora_unet_0"].alpha = 100000.0
    path = tmp_path / "a.safetensors"
    save_adapter(path, adapter_tensors(adapter, "fp16"), {})
    assert float(load_file(path)["lora_unet_0.alpha"]) == 100000.0
    assert load_file(path)["lora_unet_0.lokr_w1"].dtype == torch.float16


def test_the_same_adapter_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        metadata = {str(i): str(i) for i in range(20)}
        save_adapter(tmp_path / name, adapter_tensors(adapter_of("loha"), "fp16"), metadata)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_failed_write_keeps_the_old_file_and_leaves_no_part(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "a.safetensors"
    save_adapter(path, adapter_tensors(adapter_of("loha"), "fp16"), {})
    before = path.read_bytes()

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left"):
        save_adapter(path, adapter_tensors(adapter_of("lokr"), "fp16"), {})
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]


def test_numbers_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    adapter = adapter_of("loha")
    adapter.layers["lora_unet_0"].w1_a.data[0, 0] = 1e6
    with pytest.raises(UserError, match="NaN or Inf"):
        save_adapter(tmp_path / "a", adapter_tensors(adapter, "fp16"), {})
    save_adapter(tmp_path / "a", adapter_tensors(adapter, "fp32"), {})


def test_foreign_and_broken_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("not an adapter")
    save_file({"model.weight": torch.zeros(2)}, tmp_path / "checkpoint")
    with pytest.raises(UserError, match="text cannot be read"):
        read_metadata(tmp_path / "text")
    with pytest.raises(UserError, match="gone cannot be read"):
        read_adapter(tmp_path / "gone")
    with pytest.raises(UserError, match="holds no LoHa"):
        read_adapter(tmp_path / "checkpoint")


def test_tensors_that_are_no_layer_are_listed(tmp_path: Path) -> None:
    tensors = adapter_tensors(adapter_of("loha"), "fp32")
    tensors["lora_unet_0.dora_scale"] = torch.ones(3)
    tensors["lora_unet_9.hada_w1_a"] = torch.ones(3, 3)
    save_adapter(tmp_path / "a", tensors, {})
    read = read_adapter(tmp_path / "a")
    assert read.unmatched == ("lora_unet_9.hada_w1_a",) and read.dora == ("lora_unet_0",)
    assert "lora_unet_9" not in read.factors


def test_a_layer_whose_factors_do_not_fit_together_is_listed(tmp_path: Path) -> None:
    tensors = adapter_tensors(adapter_of("loha"), "fp32")
    first = tensors["lora_unet_0.hada_w1_a"]
    tensors["lora_unet_0.hada_w1_a"] = torch.ones(first.shape[0], first.shape[1] + 1)
    save_adapter(tmp_path / "a", tensors, {})
    read = read_adapter(tmp_path / "a")
    assert "lora_unet_0" not in read.factors and read.factors
    assert set(read.unmatched) == {key for key in tensors if key.startswith("lora_unet_0.")}


@pytest.mark.parametrize(
    "recipe", ["{cut", "[1]", "7", "[" * 100_000, ""], ids=["cut", "list", "number", "nested", "empty"]
)
def test_a_recipe_that_was_changed_by_hand_does_not_cost_the_file_that_replaces_it(tmp_path: Path, recipe: str) -> None:
    """The earlier file of that name is copied at the end of a run: a failure there would lose what was trained."""
    path, copy = tmp_path / "jeff.safetensors", tmp_path / "jeff-previous.safetensors"
    save_adapter(path, adapter_tensors(adapter_of("loha"), "fp16"), {RECIPE_KEY: recipe})
    copy_adapter(path, copy, "jeff-previous")
    metadata = read_metadata(copy)
    assert (metadata[RECIPE_KEY], metadata["ss_output_name"]) == (recipe, "jeff-previous")
    saving: Any = SimpleNamespace(recipe=Recipe())
    assert not Saving._is_same_run(saving, metadata)
