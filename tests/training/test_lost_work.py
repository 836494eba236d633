"""Nothing learned is lost: the last write, files of the same name, the first minutes, memory after a failure."""

# ruff: noqa: F811

from __future__ import annotations

import gc
import json
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from lib_trainer.config.recipe import MAX_NAME_BYTES
from lib_trainer.errors import ConfigError, NotWritten
from lib_trainer.events import Event, Finished, Notice, StateSaved, Step, StopRequested
from lib_trainer.training import callbacks, saving, target
from lib_trainer.training import loop as training_loop
from lib_trainer.training.callbacks import FIRST_STATE_SECONDS, ResumeSaver
from lib_trainer.utils import atomic_file
from lib_trainer.utils.atomic_file import partial_path
from tests.fakes.forge_room import ForgeRoom, fake_forge
from tests.test_run import pictures, recipe_of  # noqa: F401 - a fixture
from tests.training.test_callbacks import drive, of_kind


@pytest.fixture(scope="module")
def forge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForgeRoom]:
    with fake_forge(tmp_path_factory.mktemp("forge"), "sd1.safetensors") as room:
        yield room


def refuse_writing(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Files of these names cannot be replaced, as when another program holds them open."""
    plain = saving.save_adapter

    def save(path: Path, *content: Any) -> None:
        if path.name in names:
            raise NotWritten(f"{path.name} could not be written: held open.", "")
        plain(path, *content)

    monkeypatch.setattr(saving, "save_adapter", save)


def test_a_name_that_is_held_open_gets_a_file_beside_it(forge, pictures, monkeypatch, tmp_path) -> None:
    refuse_writing(monkeypatch, "held.safetensors")
    story = drive(forge, recipe_of(pictures, "held", max_train_steps=2), tmp_path)
    assert of_kind(story, Finished)[0].path.name == "held-2.safetensors"
    assert of_kind(story, Finished)[0].tag.startswith("<lora:held-2:")
    assert any("saved as held-2.safetensors instead" in event.text for event in of_kind(story, Notice))
    assert load_file(forge.host.lora_dir / "held-2.safetensors")


def test_when_nothing_can_be_written_a_resume_writes_without_training(forge, pictures, monkeypatch, tmp_path) -> None:
    recipe = recipe_of(pictures, "full", max_train_steps=3)
    with monkeypatch.context() as patch:
        refuse_writing(patch, "full.safetensors", "full-2.safetensors")
        with pytest.raises(NotWritten):
            drive(forge, recipe, tmp_path)
    story = drive(forge, recipe, tmp_path)
    assert not of_kind(story, Step)
    assert of_kind(story, Finished)[0].path.name == "full.safetensors"


def test_a_full_disk_for_the_resume_state_does_not_cost_the_adapter(forge, pictures, monkeypatch, tmp_path) -> None:
    def full(*_: Any) -> None:
        raise NotWritten("The disk is full.", "")

    monkeypatch.setattr(callbacks, "save_state", full)
    story = drive(forge, recipe_of(pictures, "stateless", max_train_steps=2), tmp_path)
    assert (forge.host.lora_dir / "stateless.safetensors").exists()
    assert any("resume state was not saved" in event.text for event in of_kind(story, Notice))


def test_a_name_too_long_for_its_files_is_said_before_the_first_step(forge, pictures) -> None:
    with pytest.raises(ConfigError, match="has 240 bytes"):
        drive(forge, recipe_of(pictures, "ä" * 120), None)
    # The longest name leaves the file system room for the longest name of a checkpoint that is being written.
    longest = partial_path(forge.host.lora_dir / ("a" * MAX_NAME_BYTES + "-step00000000-99.safetensors"))
    recipe_of(pictures, "a" * MAX_NAME_BYTES).check()
    longest.touch()
    longest.unlink()


def test_a_folder_that_takes_no_files_is_said_before_the_first_step(forge, pictures, monkeypatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(atomic_file, "NamedTemporaryFile", refuse)
    with pytest.raises(NotWritten, match="Read-only file system"):
        drive(forge, recipe_of(pictures, "nowhere"), None)


def test_a_disk_without_room_for_the_adapter_is_said_before_the_first_step(forge, pictures, monkeypatch) -> None:
    monkeypatch.setattr(target.shutil, "disk_usage", lambda _: SimpleNamespace(free=10_000))
    with pytest.raises(NotWritten, match=r"takes \d+ MB; .* has 0 MB free"):
        drive(forge, recipe_of(pictures, "roomless"), None)


def test_the_adapter_of_an_earlier_run_is_kept_with_its_card_and_picture(forge, pictures) -> None:
    folder = forge.host.lora_dir
    drive(forge, recipe_of(pictures, "twice", max_train_steps=1), None)
    card = json.loads((folder / "twice.json").read_text())
    (folder / "twice.json").write_text(json.dumps({**card, "notes": "mine", "preferred weight": 0.3}))
    Image.new("RGB", (8, 8)).save(folder / "twice.png")
    first = load_file(folder / "twice.safetensors")
    drive(forge, recipe_of(pictures, "twice", max_train_steps=2), None)
    kept = load_file(folder / "twice-previous.safetensors")
    assert all(torch.equal(kept[key], value) for key, value in first.items())
    assert json.loads((folder / "twice-previous.json").read_text())["notes"] == "mine"
    assert (folder / "twice-previous.png").exists() and not (folder / "twice.png").exists()
    # The new card says nothing of the old run.
    new = json.loads((folder / "twice.json").read_text())
    assert "2 steps" in new["notes"] and new["preferred weight"] == recipe_of(pictures).output.preferred_weight


def test_a_resumed_run_replaces_its_own_earlier_file(forge, pictures, tmp_path) -> None:
    def stop(event: Event) -> StopRequested | None:
        return StopRequested(save=True) if isinstance(event, Step) and event.number == 2 else None

    recipe = recipe_of(pictures, "onward", max_train_steps=4)
    drive(forge, recipe, tmp_path, stop)
    card = forge.host.lora_dir / "onward.json"
    card.write_text(json.dumps({**json.loads(card.read_text()), "description": "mine"}))
    drive(forge, recipe, tmp_path)
    assert not (forge.host.lora_dir / "onward-previous.safetensors").exists()
    assert json.loads(card.read_text())["description"] == "mine"


def test_a_new_run_with_the_same_recipe_keeps_the_earlier_file(forge, pictures, tmp_path) -> None:
    """The same settings may mean other pictures: only a resume continues the file that is there."""
    recipe = recipe_of(pictures, "again", max_train_steps=1)
    drive(forge, recipe, tmp_path / "first")
    first = load_file(forge.host.lora_dir / "again.safetensors")
    drive(forge, recipe, tmp_path / "second")
    kept = load_file(forge.host.lora_dir / "again-previous.safetensors")
    assert all(torch.equal(kept[key], value) for key, value in first.items())


def test_the_first_state_is_saved_early_and_then_less_often(forge, pictures, monkeypatch, tmp_path) -> None:
    now = [1000.0]
    monkeypatch.setattr(callbacks.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(callbacks, "save_state", lambda *_: None)
    training = SimpleNamespace(recipe=recipe_of(pictures, resume_every_minutes=2))
    saver, saved = ResumeSaver(tmp_path / "state", training, "", saved_at=now[0]), []
    for second in range(600):
        now[0] = 1000.0 + second
        if saver.is_due():
            assert [type(event) for event in saver.save(second)] == [StateSaved]
            saved.append(second)
    assert saved[:4] == [FIRST_STATE_SECONDS, 90, 210, 330]
    saver.training.recipe = recipe_of(pictures, resume_every_minutes=0)
    now[0] += 10_000
    assert not saver.is_due()


def test_a_failed_step_leaves_no_tensor_in_the_error(forge, pictures, monkeypatch, tmp_path) -> None:
    """Frames of a traceback hold what was local in them: on a GPU, memory that the host's model needs back."""
    held, taken, seen = [], [0], []
    step_loss, lora_changed = training_loop.step_loss, forge.host.lora_changed

    class Large:
        """Stands for a tensor of the failed step."""

    def fail_third(training: Any, micro_batches: Any, count: int) -> torch.Tensor:
        taken[0] += 1
        if taken[0] == 3:
            large = Large()
            held.append(weakref.ref(large))
            raise ZeroDivisionError("broken")
        return step_loss(training, micro_batches, count)

    def note(path: Path) -> None:
        gc.collect()
        seen.append(held[0]())
        lora_changed(path)

    monkeypatch.setattr(training_loop, "step_loss", fail_third)
    monkeypatch.setattr(forge.host, "lora_changed", note)
    with pytest.raises(ZeroDivisionError):
        drive(forge, recipe_of(pictures, "broken", max_train_steps=5), tmp_path)
    assert seen and all(item is None for item in seen)
