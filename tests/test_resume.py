"""Killed at any moment, a run resumes and ends with the very file of a run that was never broken.

`TRAIN_LORA_KILLS=20 pytest tests/test_resume.py` kills at 20 moments instead of three.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from lib_trainer.adapter import modules
from lib_trainer.adapter.kernels.choices import FILE
from lib_trainer.config.recipe import Recipe
from lib_trainer.events import Event
from lib_trainer.host.standalone.host import StandaloneHost
from lib_trainer.jobs.history import RUNS_DIR, History
from lib_trainer.models import device
from lib_trainer.run import run
from tests.cli.tiny_demo import write_weights
from tests.killing import STEP, Work, live, whole_files

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

KILLS, STEPS = int(os.environ.get("TRAIN_LORA_KILLS", "3")), 5
VALUES = {
    "algo": "lokr", "network_dim": 4, "conv_dim": 0, "factor": 4, "resolution_px": (64, 64), "min_bucket_reso": 64,
    "max_train_steps": STEPS, "learning_rate": 1e-2, "optimizer": "AdamW", "noise_offset": 0.1, "flip_aug": True,
    "shuffle_caption": True, "gradient_accumulation_steps": 2, "gradient_checkpointing": False, "output_name": "jeff",
    "save_every_n_steps": 2, "save_last_n_steps": 1, "resume_every_minutes": 1e-6, "cache_latents_to_disk": True,
}  # fmt: skip
OTHERS = "others"
# Runs of other kinds, short.
KINDS: dict[str, dict[str, Any]] = {
    "difference": {"mode": "difference", "preferred_weight": 1.0},
    "norms of a DoRA, and an embedding": {
        "algo": "locon",
        "dora_wd": True,
        "train_norm": True,
        "ema_decay": 0.9,
        "num_vectors_per_token": 2,
    },
}


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> tuple[StandaloneHost, Path]:
    """A host with a tiny model, opened once for all processes, and a folder of pictures of two shapes."""
    root = tmp_path_factory.mktemp("resume")
    folder = root / "pictures" / "2_jeff_person"
    folder.mkdir(parents=True)
    for i, size in enumerate([(64, 64), (96, 64), (64, 64), (64, 64), (64, 64)]):
        Image.effect_noise(size, 40 + i).convert("RGB").save(folder / f"{i}.png")
        other = root / OTHERS / folder.name / f"{i}.png"
        other.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise(size, 90 + i).convert("RGB").save(other)
        (folder / f"{i}.txt").write_text(f"jeff_person, photo {i}, smiling, outside")
    host = StandaloneHost(root, write_weights(root / "weights"))
    host.describe()
    return host, folder.parent


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def life(setting: tuple[StandaloneHost, Path], out: Path, **changes: Any) -> Work:
    """A life of the run in `out`: begins it, or goes on with it where it was begun."""
    host, pictures = setting

    def work(mark: Callable[[Event], None]) -> None:
        host.lora_dir, host.cache_dir = out / "models" / "Lora", out / "cache"
        history = History(host.cache_dir / RUNS_DIR)
        recipe = Recipe().with_values({**VALUES, "train_data_dir": str(pictures), **changes})
        past = next(iter(history.runs()), None)
        # Killed when all was done: there is nothing to go on with.
        if past and past.state == "done":
            return
        log = history.reopen(past.id) if past else history.begin(recipe)
        for event in run(host, log.past.as_recipe(), log.folder):
            mark(event)
            log.take(event)
        log.finish("done")

    return work


@pytest.fixture(scope="module")
def unbroken(setting, tmp_path_factory) -> tuple[Path, bytes]:
    """The LoRA folder of a run that was never broken, and its moments."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    # What is imported late is there for all processes that are forked from here.
    life(setting, tmp_path_factory.mktemp("warm"))(lambda event: None)
    out = tmp_path_factory.mktemp("unbroken")
    moments = live(life(setting, out))
    torch.set_num_threads(before)
    return out / "models" / "Lora", moments


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in whole_files(folder)}


def test_the_unbroken_run_keeps_the_last_copies(unbroken) -> None:
    assert list(contents(unbroken[0])) == [f"jeff-step{STEPS - 1:08}.safetensors", "jeff.safetensors"]


@pytest.mark.parametrize("kill", range(KILLS))
def test_a_run_that_is_killed_goes_on(setting, unbroken, tmp_path: Path, one_thread, kill: int) -> None:
    """Random moments, spread over the run: the first in caching or the first step, the others up to the final file."""
    folder, moments = unbroken
    first = moments.index(STEP) + 1
    span = (len(moments) - first) / max(1, KILLS - 1)
    start, span = (1, first) if kill == 0 else (first + 1 + int(span * (kill - 1)), span)
    at = start + int(random.Random(kill).random() * span)
    live(life(setting, tmp_path), killed_at=min(at, len(moments) - 1))
    whole_files(tmp_path / "models" / "Lora")
    live(life(setting, tmp_path))
    assert contents(tmp_path / "models" / "Lora") == contents(folder)
    past = History(tmp_path / "cache" / RUNS_DIR).runs()
    assert [(run.state, run.step) for run in past] == [("done", STEPS)]
    losses = History(tmp_path / "cache" / RUNS_DIR).losses(past[0].id)
    assert [step for step, _, _ in losses] == list(range(1, STEPS + 1))
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize("kind", KINDS)
def test_runs_of_other_kinds_go_on_to_the_same_file(setting, tmp_path: Path, one_thread, kind: str) -> None:
    changes = {"max_train_steps": 3, "save_every_n_steps": 0, "flip_aug": False, "optimizer": "AdamW", **KINDS[kind]}
    if kind == "difference":
        changes["diff_target_dir"] = str(setting[1].parent / OTHERS)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    moments = live(life(setting, whole, **changes))
    live(life(setting, killed, **changes), killed_at=len(moments) * 2 // 3)
    history = History(killed / "cache" / RUNS_DIR)
    assert history.runs()[0].step < 3 and not (killed / "models" / "Lora" / "jeff.safetensors").exists()
    live(life(setting, killed, **changes))
    assert contents(killed / "models" / "Lora") == contents(whole / "models" / "Lora")
    assert history.runs()[0].step == 3


def test_a_run_resumes_in_the_dtype_and_the_strategies_that_it_began_with(
    setting, tmp_path: Path, one_thread, monkeypatch
) -> None:
    """As on a CPU that is faster in bfloat16; when the run goes on, the CPU is busy and seems slower."""
    monkeypatch.setattr(device, "cpu_is_faster_in_bf16", lambda: True)
    monkeypatch.setattr(modules, "fastest", lambda strategies, *_: [*strategies][-1])
    whole, killed, plain = tmp_path / "whole", tmp_path / "killed", tmp_path / "plain"
    short = {"max_train_steps": 3, "gradient_accumulation_steps": 1, "save_every_n_steps": 0}
    moments = live(life(setting, whole, **short))
    live(life(setting, killed, **short), killed_at=len(moments) * 2 // 3)
    monkeypatch.setattr(device, "cpu_is_faster_in_bf16", lambda: False)
    # Another clock, and no cache that would know of the first.
    monkeypatch.setattr(modules, "fastest", lambda strategies, *_: next(iter(strategies)))
    (killed / "cache" / FILE).unlink()
    live(life(setting, killed, **short))
    live(life(setting, plain, **short))
    found = contents(killed / "models" / "Lora")
    assert found == contents(whole / "models" / "Lora") != contents(plain / "models" / "Lora")
    history = History(whole / "cache" / RUNS_DIR)
    assert all(0 < loss < 2 for _, loss, _ in history.losses(history.runs()[0].id))
