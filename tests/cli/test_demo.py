"""`demo` from end to end, on a tiny random model and two steps: everything but the learning."""

from __future__ import annotations

from dataclasses import replace

import pytest
from PIL import Image

from lib_trainer.adapter.io import read_metadata
from lib_trainer.cli import demo
from lib_trainer.cli.main import main
from lib_trainer.cli.run_training import train
from lib_trainer.demo import evaluate as learning
from lib_trainer.demo.datasets import prior_drawings
from lib_trainer.demo.recipes import DEMO_RUNS
from lib_trainer.host.standalone.host import StandaloneHost


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(demo, "REQUEST", replace(demo.REQUEST, steps=1))
    monkeypatch.setattr(demo, "STRENGTHS", (0.0, 1.0))
    monkeypatch.setattr(demo, "prior_drawings", lambda: prior_drawings(2))
    monkeypatch.setattr(learning, "TIMESTEPS", (500,))
    for demo_run in DEMO_RUNS.values():
        monkeypatch.setitem(demo_run.overrides, "max_train_steps", 2)
        monkeypatch.setitem(demo_run.overrides, "sample_prompts", "jeff_person, a hat --s 1")


def test_both_runs_leave_files_figures_and_grids(embedded, quick, tmp_path, last_json):
    assert main(["demo", "--out", str(tmp_path), "--recipe", "both", "--json"]) == 0
    values = last_json()
    assert list(values["trained"]) == ["face", "style"]
    for kind, name in (("face", "jeff_person"), ("style", "style_name")):
        trained = values["trained"][kind]
        assert trained["path"] == str(tmp_path / "models" / "Lora" / f"{name}.safetensors")
        assert trained["steps"] == 2
        figures = trained["learning"]
        assert list(figures["concept"]) == ["0", "0.2", "0.4", "0.6", "0.8", "1"]
        assert figures["gain"] == pytest.approx(1 - figures["concept"]["1"] / figures["concept"]["0"], abs=1e-3)
        assert bool(figures["unseen"]) is (kind == "style")
    grids = [values["trained"]["face"]["grid"], values["trained"]["style"]["grid"], values["combined_grid"]]
    assert grids[0] == str(tmp_path / "strength_grid.png")
    assert len(set(grids)) == 3
    for path in grids:
        assert Image.open(path).width >= 2 * 192


def test_a_second_run_writes_the_same_bytes(embedded, quick, tmp_path):
    files = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        demo_run = DEMO_RUNS["face"]
        finished, _ = train(StandaloneHost(folder), demo_run.recipe(demo_run.draw(folder / "data")))
        files.append(finished.path.read_bytes())
    assert files[0] == files[1]
    metadata = read_metadata(finished.path)
    assert metadata["ss_base_model_version"] == "sd_v1"
    assert metadata["modelspec.architecture"] == "stable-diffusion-v1/lora"


@pytest.mark.parametrize("kind", ["face", "style"])
def test_demo_runs_are_the_shipped_recipes_but_for_their_size(kind, tmp_path):
    recipe = DEMO_RUNS[kind].recipe(tmp_path).check()
    assert recipe.adapter.algo == {"face": "loha", "style": "lokr"}[kind]
    assert recipe.adapter.network_dim == {"face": 32, "style": 64}[kind]
    assert recipe.dataset.resolution_px == (64, 64)
    assert recipe.training.max_train_steps <= 1000


def test_a_stopped_demo_says_so_and_draws_nothing(embedded, quick, tmp_path, monkeypatch, last_json):
    from lib_trainer.events import Finished

    path = tmp_path / "models" / "Lora" / "jeff_person.safetensors"
    monkeypatch.setattr(demo, "train", lambda host, recipe: (Finished(path, "<lora:x:1>", 1, stopped_early=True), ()))
    assert main(["demo", "--out", str(tmp_path), "--recipe", "both", "--json"]) == 130
    values = last_json()
    assert list(values["trained"]) == ["face"]
    assert not (tmp_path / "strength_grid.png").exists()
