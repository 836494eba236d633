"""A run that goes on from what was kept of it ends with the very numbers of a run that was never broken."""

from __future__ import annotations

import json
import os
import random
from dataclasses import replace
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lib_trainer.adapter.attach import attached, new_adapter
from lib_trainer.config.recipe import AdapterConfig, Recipe
from lib_trainer.errors import UserError
from lib_trainer.events import Step
from lib_trainer.models import device
from lib_trainer.models.base import CheckpointInfo
from lib_trainer.models.optimizers import SOURCES
from lib_trainer.training.loop import Training, fit
from lib_trainer.training.loss_scale import LossScale
from lib_trainer.training.resume_facts import HEADER, dtype_of_run
from lib_trainer.training.resume_state import load_state, save_state
from tests.training.small import make_batch, one_layer_model, recipe_of, schedule_of

CHECKPOINT = CheckpointInfo("small.safetensors", "abc")
INSTALLED = [name for name, source in SOURCES.items() if find_spec(source.module.partition(".")[0])]
# Any class of the library may be named.
INSTALLED += ["Tiger", "ADOPT", "ScheduleFreeRAdam"] if find_spec("pytorch_optimizer") else []


def training_of(recipe: Recipe, started_from: str = "") -> Training:
    model = one_layer_model()
    model.checkpoint = CHECKPOINT
    adapter = new_adapter(model.layers, recipe.adapter, recipe.training.seed)
    return Training(model, adapter, recipe, schedule_of(recipe), make_batch, started_from=started_from)


def take(training: Training, taken: int = 0, steps: int | None = None) -> list[Step]:
    model = training.model
    with attached(training.adapter, model.layers, model.read_weight):
        events = (event for event in fit(training, taken) if isinstance(event, Step))
        return list(islice(events, steps))


def header_of(path: Path) -> dict[str, Any]:
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()[HEADER])


def numbers(training: Training) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in training.adapter.parameters()]


def go_on(recipe: Recipe, path: Path, broken_at: int) -> tuple[Training, list[Step]]:
    """The second life of a run whose first ended after some steps."""
    first = training_of(recipe)
    take(first, steps=broken_at)
    save_state(path, first, broken_at, "pictures")
    torch.manual_seed(random.randrange(1000))
    second = training_of(recipe)
    return second, take(second, load_state(path, second, "pictures"))


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("optimizer", INSTALLED)
def test_a_broken_run_ends_with_the_same_numbers(tmp_path: Path, optimizer: str, fused: bool) -> None:
    if fused and optimizer == "Prodigy":
        pytest.skip("Prodigy sees all parameters at once")
    settings = {"optimizer": optimizer, "lr_scheduler": "cosine", "lr_warmup": 20.0, "max_train_steps": 20}
    recipe = recipe_of(**settings, fused_backward_pass=fused)
    # Wide enough for 8-bit states, which small tensors do without.
    recipe = replace(recipe, adapter=AdapterConfig(algo="locon", conv_dim=128))
    whole = training_of(recipe)
    steps = take(whole)
    second, rest = go_on(recipe, tmp_path / "state.safetensors", 5)
    assert [(step.number, step.epoch, step.loss, step.learning_rate) for step in rest] == [
        (step.number, step.epoch, step.loss, step.learning_rate) for step in steps[5:]
    ]
    assert all(torch.equal(a, b) for a, b in zip(numbers(whole), numbers(second), strict=True))


@pytest.mark.parametrize("broken_at", range(12))
def test_wherever_it_broke(tmp_path: Path, broken_at: int) -> None:
    """Four batches in steps of three passes: the second step of every epoch has one."""
    recipe = recipe_of(gradient_accumulation_steps=3, noise_offset=0.1, min_snr_gamma=5.0)
    recipe = replace(recipe, adapter=AdapterConfig(algo="locon", conv_dim=2, rank_dropout=0.3))
    whole = training_of(recipe)
    take(whole)
    second, rest = go_on(recipe, tmp_path / "state.safetensors", broken_at)
    assert len(rest) == 12 - broken_at
    assert all(torch.equal(a, b) for a, b in zip(numbers(whole), numbers(second), strict=True))


def test_random_numbers_go_on_too(tmp_path: Path) -> None:
    training = training_of(recipe_of())
    path = tmp_path / "state.safetensors"
    torch.manual_seed(3)
    save_state(path, training, 0, "pictures")
    expected = torch.rand(4)
    load_state(path, training_of(recipe_of()), "pictures")
    assert torch.equal(torch.rand(4), expected)


def in_fp16(recipe: Recipe, value: float, good_steps: int = 0) -> Training:
    training = training_of(recipe)
    training.loss_scale = LossScale(True, value)
    training.loss_scale.good_steps = good_steps
    return training


@pytest.mark.parametrize("fused", [False, True])
def test_loss_scaling_goes_on_too(tmp_path: Path, fused: bool) -> None:
    recipe, path = recipe_of(fused_backward_pass=fused), tmp_path / "state.safetensors"
    first, second = in_fp16(recipe, 64.0, 77), in_fp16(recipe, 2.0)
    save_state(path, first, 3, "pictures")
    assert load_state(path, second, "pictures") == 3
    assert (second.loss_scale.value, second.loss_scale.good_steps) == (64.0, 77)


@pytest.mark.parametrize(("tracked", "counted"), [(77, 0), (0, 4077)], ids=["GradScaler", "fused"])
def test_the_loss_scale_of_an_earlier_release_is_read(tracked: int, counted: int) -> None:
    """It was a GradScaler's, which a fused backward pass counted for."""
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    scaler.scale(torch.ones(()))
    scale = LossScale(True)
    scale.load({**scaler.state_dict(), "_growth_tracker": tracked}, counted)
    assert (scale.value, scale.good_steps) == (64.0, 77)
    # And what is written can be read by it.
    scaler.load_state_dict({**scaler.state_dict(), **scale.state()})
    assert scaler.get_scale() == 64.0


def test_without_a_file_it_begins_at_the_start(tmp_path: Path) -> None:
    assert load_state(tmp_path / "none.safetensors", training_of(recipe_of()), "pictures") == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"pictures": "others"}, "pictures or captions"),
        ({"checkpoint": CheckpointInfo("small.safetensors", "other")}, "checkpoint"),
        ({"learning_rate": 1e-3}, "settings"),
        ({"max_train_steps": 11}, "number of steps"),
        ({"started_from": "another"}, "a LoRA that it starts from or trains over has changed"),
    ],
)
def test_what_has_changed_since_is_named(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    path = tmp_path / "state.safetensors"
    save_state(path, training_of(recipe_of(), "a LoRA"), 3, "pictures")
    pictures, checkpoint = change.pop("pictures", "pictures"), change.pop("checkpoint", CHECKPOINT)
    lora = change.pop("started_from", "a LoRA")
    training = training_of(recipe_of(**change), lora)
    training.model.checkpoint = checkpoint
    with pytest.raises(UserError, match=said):
        load_state(path, training, pictures)


@pytest.mark.parametrize("content", [b"", b"no safetensors", None])
def test_a_damaged_file_is_said(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "state.safetensors"
    save_state(path, training_of(recipe_of()), 3, "pictures")
    path.write_bytes(path.read_bytes()[:-9] if content is None else content)
    with pytest.raises(UserError, match="cannot be read") as caught:
        load_state(path, training_of(recipe_of()), "pictures")
    assert "begins from step 0" in caught.value.hint


def test_a_full_disk_is_said_and_the_state_before_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, training = tmp_path / "state.safetensors", training_of(recipe_of())
    save_state(path, training, 3, "pictures")

    def full(*_args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left"):
        save_state(path, training, 4, "pictures")
    monkeypatch.undo()
    assert load_state(path, training_of(recipe_of()), "pictures") == 3
    assert list(tmp_path.iterdir()) == [path]


def test_a_state_of_another_release_is_not_read_as_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.safetensors"
    monkeypatch.setattr("lib_trainer.training.resume_state.FORMAT", -1)
    save_state(path, training_of(recipe_of()), 3, "pictures")
    monkeypatch.undo()
    with pytest.raises(UserError):
        load_state(path, training_of(recipe_of()), "pictures")


def test_a_resumed_run_computes_as_it_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, cpu, path = recipe_of(mixed_precision="bf16"), torch.device("cpu"), tmp_path / "state.safetensors"
    assert dtype_of_run(path, recipe, cpu) == dtype_of_run(None, recipe, cpu) == torch.float32
    training = replace(training_of(recipe), dtype=torch.bfloat16)
    take(training, steps=2)
    assert {x.dtype for x in training.model.seen} == {torch.bfloat16}
    save_state(path, training, 2, "pictures")
    assert dtype_of_run(path, recipe, cpu) == torch.bfloat16
    # Another kind of device computes as it would.
    assert dtype_of_run(path, recipe_of(mixed_precision="fp16"), torch.device("meta")) == torch.float16
    # Earlier releases computed in float32 on every CPU, and did not write it down.
    header = header_of(path)
    del header["computes"]
    save_file(load_file(path), path, {HEADER: json.dumps(header)})
    monkeypatch.setattr(device, "cpu_is_faster_in_bf16", lambda: True)
    assert dtype_of_run(path, recipe, cpu) == torch.float32
    assert dtype_of_run(None, recipe, cpu) == torch.bfloat16
