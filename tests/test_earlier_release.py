"""What release 0.1 wrote still opens: runs and their states, settings, recipes, adapters with cards, caches.

`tests/data/release_0_1` was written by that release's own code; nothing in it is ever written again.
"""

from __future__ import annotations

import json
import shutil
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from lib_trainer.adapter.attach import attached, new_adapter
from lib_trainer.adapter.io import is_ours, read_adapter
from lib_trainer.config.recipe import Recipe, field_types
from lib_trainer.dataset.cache import cache_latents, cache_texts
from lib_trainer.dataset.fingerprint import fingerprint
from lib_trainer.dataset.sampler import Schedule
from lib_trainer.dataset.scan import scan_folder
from lib_trainer.events import Step
from lib_trainer.jobs.history import RUNS_DIR, STATE_FILE, History
from lib_trainer.jobs.queue import Jobs
from lib_trainer.lora.card import read_card, write_card
from lib_trainer.lora.describe import describe_lora
from lib_trainer.models.base import CheckpointInfo
from lib_trainer.models.families import SD1
from lib_trainer.recipes.files import load_recipe
from lib_trainer.training.loop import Training, fit
from lib_trainer.training.resume_facts import resumed_settings
from lib_trainer.training.resume_state import load_state
from tests.dataset.tiny import TinyModel, drive, make_recipe
from tests.training.small import make_batch, one_layer_model, schedule_of
from tests.ui.fakes import FakeHost
from tests.waiting import PATIENCE_S

DATA = Path(__file__).parent / "data" / "release_0_1"
RUN_ID = "20251124-160000-0123ab"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A copy that tests may write to."""
    return Path(shutil.copytree(DATA, tmp_path / "old"))


def recipe_values() -> dict[str, Any]:
    return json.loads((DATA / "recipe.json").read_text("utf-8"))


def as_json(recipe: Recipe) -> dict[str, Any]:
    return json.loads(json.dumps(recipe.flat()))


def training_of(recipe: Recipe) -> Training:
    model = one_layer_model()
    model.checkpoint = CheckpointInfo("small.safetensors", "abc")
    return Training(
        model, new_adapter(model.layers, recipe.adapter, recipe.training.seed), recipe, schedule_of(recipe), make_batch
    )


def test_a_stopped_run_is_listed_with_its_curve_and_can_be_resumed(old: Path) -> None:
    history = History(old / RUNS_DIR)
    (past,) = history.runs()
    assert (past.id, past.name, past.state, past.step, past.steps, past.kept_step) == (
        RUN_ID, "jeff_person", "stopped", 5, 12, 5,
    )  # fmt: skip
    assert past.samples == ((5, "step00000005-0.png", "jeff_person as a superhero"),)
    assert past.files == ("jeff_person-step00000004.safetensors",)
    assert past.resumable
    assert [step for step, _, _ in history.losses(RUN_ID)] == [1, 2, 3, 4, 5]


def test_its_record_goes_on_where_it_ended(old: Path, tmp_path: Path) -> None:
    host = FakeHost(tmp_path)
    shutil.copytree(old / RUNS_DIR, host.cache_dir / RUNS_DIR)
    seen: list[tuple[Recipe, bool]] = []

    def run(_host: Any, recipe: Recipe, folder: Path) -> Any:
        seen.append((recipe, (folder / STATE_FILE).exists()))
        yield Step(6, 12, 3, 0.5, 1e-4, 0.1)

    jobs = Jobs(host, run)
    assert jobs.resume_run(RUN_ID) == RUN_ID
    assert not jobs.wait(PATIENCE_S).live
    ((recipe, has_state),) = seen
    assert has_state and recipe.training.lr_warmup == 20.0 and recipe.training.gradient_accumulation_steps == 3
    assert [step for step, _ in jobs.status().losses] == [1, 2, 3, 4, 5, 6]


def test_its_state_goes_on_with_the_very_losses_of_that_release(old: Path) -> None:
    folder = old / RUNS_DIR / RUN_ID
    recipe = History(old / RUNS_DIR).find(RUN_ID).as_recipe()
    pictures = json.loads((folder / "run.json").read_text("utf-8"))["pictures"]
    assert resumed_settings(folder / STATE_FILE)["min_snr_gamma"] == 5.0
    training = training_of(recipe)
    step = load_state(folder / STATE_FILE, training, pictures)
    assert step == 5
    with attached(training.adapter, training.model.layers, training.model.read_weight):
        taken = [event for event in fit(training, step) if isinstance(event, Step)]
    expected = json.loads((old / "steps_6_to_12.json").read_text("utf-8"))
    assert [taken_step.number for taken_step in taken] == [number for number, _, _ in expected]
    found = torch.tensor([(taken_step.loss, taken_step.learning_rate) for taken_step in taken])
    torch.testing.assert_close(found, torch.tensor([row[1:] for row in expected]), rtol=1e-4, atol=1e-7)


def test_a_recipe_of_ours_opens_with_every_value(old: Path) -> None:
    loaded = load_recipe(old / "recipe.json")
    assert not loaded.problems and not loaded.notices
    assert recipe_values().items() <= as_json(loaded.recipe).items()


def test_the_last_settings_come_back(old: Path) -> None:
    pytest.importorskip("gradio")
    from lib_trainer.ui.starting_point import starting_point

    start = starting_point(old / "train_lora.json")
    assert start.kind == "style" and start.preset == "Style · LoKr · 8 GB"
    assert recipe_values().items() <= json.loads(json.dumps(start.values)).items()
    assert set(start.values) <= set(field_types())


def test_an_adapter_and_its_card_are_read(old: Path) -> None:
    path = old / "jeff_person.safetensors"
    file = read_adapter(path)
    assert is_ours(path) and not file.unmatched and list(file.factors) == ["lora_unet_conv"]
    lora = describe_lora(path, "jeff_person", file.metadata)
    assert (lora.family, lora.trigger_words, lora.strength, lora.steps) == (SD1, "jeff_person", 0.7, 12)
    recipe = load_recipe(path).recipe
    assert (recipe.training.learning_rate, recipe.output.comment) == (1e-2, "first try")
    before = read_card(path)
    write_card(path, {**before, "notes": "ours", "sd version": "SD1"})
    assert read_card(path) == before


def test_what_was_encoded_is_not_encoded_again(old: Path) -> None:
    recipe = make_recipe(
        old / "pictures", resolution_px=(64, 64), flip_aug=True, shuffle_caption=True, caption_variants=2, seed=5,
        epoch=2, cache_latents_to_disk=True,
    )  # fmt: skip
    schedule, model = Schedule(scan_folder(recipe.dataset), recipe), TinyModel(pooled=True)
    _, latents = drive(cache_latents(schedule, model, old / "cache"))
    _, texts = drive(cache_texts(schedule, model, 1, old / "cache"))
    assert model.pictures == 0 and model.texts == []
    assert {latents.read(*picture)[0].shape for picture in islice(latents.entries, 4)} == {(4, 8, 8)}
    assert texts.read("").pooled is not None
    run = json.loads((old / RUNS_DIR / RUN_ID / "run.json").read_text("utf-8"))
    assert fingerprint(scan_folder(recipe.dataset)) == run["pictures"]
