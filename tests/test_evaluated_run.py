"""Whole runs that measure themselves: when they end, what they leave, and how they go on."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from lib_trainer.adapter.io import read_metadata
from lib_trainer.adapter.metadata import EVALUATION_KEY, RECIPE_KEY
from lib_trainer.config.recipe import Recipe
from lib_trainer.errors import UserError
from lib_trainer.evaluation.measures import Figures, Parabola
from lib_trainer.evaluation.meter import Meter
from lib_trainer.events import Evaluated, Event, Finished, Notice, Sampled, Step, StopRequested
from lib_trainer.host.standalone.host import StandaloneHost
from lib_trainer.jobs.history import RUNS_DIR, STATE_FILE, History
from lib_trainer.run import run
from tests.cli.tiny_demo import write_weights
from tests.evaluation.test_likeness import write_clip
from tests.killing import Work, live, whole_files

VALUES = {
    "algo": "lokr", "network_dim": 4, "conv_dim": 0, "factor": 4, "resolution_px": (64, 64), "min_bucket_reso": 64,
    "max_train_steps": 8, "learning_rate": 1e-2, "optimizer": "AdamW", "noise_offset": 0.1,
    "gradient_checkpointing": False, "output_name": "jeff", "save_precision": "fp32", "validate_every_n_steps": 2,
    "sample_prompts": "jeff_person, a hat --s 1",
}  # fmt: skip
# What an evaluation asks is asked in batches of this size.
MEASURED = {"train_batch_size": 4}


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> tuple[StandaloneHost, Path]:
    """A host with a tiny model, and ten pictures, of which one is held out."""
    root = tmp_path_factory.mktemp("evaluated")
    folder = root / "pictures" / "1_jeff_person"
    folder.mkdir(parents=True)
    for i in range(10):
        Image.effect_noise((64, 64), 40 + i).convert("RGB").save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(f"jeff_person, photo {i}")
    host = StandaloneHost(root, write_weights(root / "weights"))
    host.describe()
    return host, folder.parent


@pytest.fixture
def host(setting, tmp_path: Path) -> Iterator[StandaloneHost]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    setting[0].lora_dir, setting[0].cache_dir = tmp_path / "models" / "Lora", tmp_path / "cache"
    yield setting[0]
    torch.set_num_threads(threads)


def recipe_of(setting: tuple[StandaloneHost, Path], **changes: Any) -> Recipe:
    return Recipe().with_values({**VALUES, "train_data_dir": str(setting[1]), **changes})


def scripted(monkeypatch: pytest.MonkeyPatch, shares: dict[int, float]) -> None:
    """Lets evaluations find this share of the loss gone after each step, least at strength 0.8: best at 0.9."""

    def measure_base(meter: Meter, _step: Step) -> Iterator[Event]:
        meter._base = {"trained": torch.zeros(())}
        yield from ()

    def measure(_meter: Meter, step: int) -> Figures:
        curve = Parabola(1.6 * shares[step], -shares[step])
        return Figures(step, curve, curve, 0.1, 0.1, {"0.png": shares[step]})

    monkeypatch.setattr(Meter, "measure_base", measure_base)
    monkeypatch.setattr(Meter, "measure", measure)


def finished(story: list[Event]) -> Finished:
    assert isinstance(story[-1], Finished)
    return story[-1]


def test_it_ends_when_more_steps_do_not_help_and_keeps_the_best(setting, host, monkeypatch) -> None:
    scripted(monkeypatch, {2: 0.3, 4: 0.5, 6: 0.45, 8: 0.4, 10: 0.4})
    card = host.lora_dir / "jeff.json"
    card.parent.mkdir(parents=True)
    card.write_text('{"preferred weight": 0.3, "notes": "mine"}')
    at_four = finished(list(run(host, recipe_of(setting, max_train_steps=4, lr_scheduler="constant", output_name="x"))))
    story = list(run(host, recipe_of(setting, stop_when_learned=True, max_train_steps=40, lr_scheduler="constant")))
    assert [event.step for event in story if isinstance(event, Evaluated)] == [2, 4, 6, 8, 10]
    assert [event.learning_rate for event in story if isinstance(event, Step)] == [0.01] * 9 + [0.005]
    assert "the learning rate falls to zero until step 10" in "".join(e.text for e in story if isinstance(e, Notice))
    end = finished(story)
    assert (end.steps, end.stopped_early, end.tag) == (10, False, "<lora:jeff:0.9>")
    assert (end.evaluated.verdict, end.evaluated.step, end.evaluated.best_step) == ("learned", 4, 4)
    best, last = load_file(end.path), load_file(host.lora_dir / "jeff-step00000010.safetensors")
    expected = load_file(at_four.path)
    assert all(torch.equal(best[key], expected[key]) for key in expected)
    assert any(not torch.equal(best[key], last[key]) for key in best)
    metadata = read_metadata(end.path)
    assert metadata["ss_steps"] == "4" and metadata["modelspec.usage_hint"] == "<lora:jeff:0.9>"
    found = json.loads(metadata[EVALUATION_KEY])
    assert found["verdict"] == "learned" and found["best_step"] == 4 and found["best_strength"] == 0.9
    written = json.loads(card.read_text("utf-8"))
    assert written["preferred weight"] == 0.9 and written["notes"] == "mine"


def test_the_report_shows_the_last_and_the_best_step(setting, host, monkeypatch, tmp_path: Path) -> None:
    scripted(monkeypatch, {2: 0.3, 4: 0.5, 6: 0.45, 8: 0.4, 10: 0.4})
    drawn, generate = [], host.generate
    monkeypatch.setattr(host, "generate", lambda request: drawn.append(generate(request)[0]) or drawn[-1:])
    values = {"stop_when_learned": True, "max_train_steps": 40, "lr_scheduler": "constant"}
    recipe, folder = recipe_of(setting, **values), tmp_path / "run"
    write_clip(host.lora_dir.parent / "clip_vision" / "stand-in")
    story = list(run(host, recipe, folder))
    end, (sampled,) = finished(story), [event for event in story if isinstance(event, Sampled)]
    assert sampled.prompt == "jeff_person, a hat: step 10 at 1, step 4 at 0.9, step 4 at 0.45"
    assert sampled.path == folder / "samples" / "jeff.report.png" and Image.open(sampled.path).width > 3 * 64
    assert len({picture.tobytes() for picture in drawn}) == 3
    html = (folder / "jeff.report.html").read_text("utf-8")
    assert "data:image/png;base64," in html and "<tr><td>step 4 at 0.45</td>" in html and ".png</td>" in html
    # What is saved is the best step at strength 1, whatever was drawn meanwhile.
    with_it, alone = load_file(end.path), finished(list(run(host, recipe_of(setting, **values, output_name="alone"))))
    assert all(torch.equal(with_it[key], value) for key, value in load_file(alone.path).items())


def test_a_report_without_pictures_is_a_report(setting, host, monkeypatch, tmp_path: Path) -> None:
    def fail(_request: Any) -> None:
        raise RuntimeError

    monkeypatch.setattr(host, "generate", fail)
    story = list(run(host, recipe_of(setting, max_train_steps=2, **MEASURED), tmp_path))
    assert finished(story).steps == 2 and not [event for event in story if isinstance(event, Sampled)]
    assert any("could not be generated: RuntimeError" in event.text for event in story if isinstance(event, Notice))
    assert "<img" not in (tmp_path / "jeff.report.html").read_text("utf-8")


def test_without_the_rule_the_advice_is_the_same_and_nothing_changes(setting, host, monkeypatch) -> None:
    scripted(monkeypatch, {2: 0.3, 4: 0.5, 6: 0.45, 8: 0.4})
    end = finished(list(run(host, recipe_of(setting))))
    assert end.steps == 8 and "Use step 4 at strength 0.9" in end.evaluated.advice
    assert read_metadata(end.path)["ss_steps"] == "8" and end.tag == "<lora:jeff:0.8>"
    assert [path.name for path in whole_files(host.lora_dir)] == ["jeff.safetensors"]


def test_only_the_held_out_pictures_change_what_is_trained(setting, host) -> None:
    short = {"max_train_steps": 2, **MEASURED}
    plain = finished(list(run(host, recipe_of(setting, output_name="plain", validate_every_n_steps=0, **short))))
    story = list(run(host, recipe_of(setting, output_name="measured", held_out="none", **short)))
    first, second = load_file(plain.path), load_file(finished(story).path)
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert EVALUATION_KEY not in read_metadata(plain.path)
    assert "validate_every_n_steps" not in json.loads(read_metadata(plain.path)[RECIPE_KEY])
    story = list(run(host, recipe_of(setting, output_name="held out", max_train_steps=1, **MEASURED)))
    (said,) = [event.text for event in story if isinstance(event, Notice) and "Held out" in event.text]
    metadata = read_metadata(finished(story).path)
    assert metadata["ss_num_train_images"] == "9" and said.count(".png") == 1


@pytest.mark.parametrize(
    ("captions", "rate", "verdict", "said"),
    [
        ("jeff_person, photo", 0.2, "burning", "The learning rate is too high"),
        ("photo", 1e-2, "not learned yet", "never bind the trigger word “jeff_person”"),
    ],
)
def test_a_bad_run_is_told_what_is_wrong(
    setting, host, tmp_path: Path, captions: str, rate: float, verdict: str, said: str
) -> None:
    shutil.copytree(setting[1], tmp_path / "pictures")
    for path in (tmp_path / "pictures").rglob("*.txt"):
        path.write_text(captions)
    changes = {"train_data_dir": str(tmp_path / "pictures"), "learning_rate": rate, "max_train_steps": 2, **MEASURED}
    found = finished(list(run(host, recipe_of(setting, **changes)))).evaluated
    assert found.verdict == verdict and said in found.advice


def lived(setting, host: StandaloneHost, **changes: Any) -> Work:
    """A life of a run: begins it, or goes on with it where it was begun."""

    def work(mark: Callable[[Event], None]) -> None:
        history = History(host.cache_dir / RUNS_DIR)
        log = next((history.reopen(past.id) for past in history.runs()), None)
        log = log or history.begin(recipe_of(setting, resume_every_minutes=1e-6, **changes))
        for event in run(host, log.past.as_recipe(), log.folder):
            mark(event)
            log.take(event)
        log.finish("done")

    return work


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_run_that_is_killed_finds_the_same(setting, host, tmp_path: Path) -> None:
    changes = {"stop_when_learned": True, "text_encoder_lr": 1e-3, "max_train_steps": 2, "validate_every_n_steps": 1}
    changes |= MEASURED
    moments = live(lived(setting, host, **changes))
    whole = {path.name: path.read_bytes() for path in whole_files(host.lora_dir)}
    found = History(host.cache_dir / RUNS_DIR).runs()[0].evaluations
    host.lora_dir, host.cache_dir = tmp_path / "killed" / "Lora", tmp_path / "killed" / "cache"
    live(lived(setting, host, **changes), killed_at=len(moments) * 2 // 3)
    live(lived(setting, host, **changes))
    assert {path.name: path.read_bytes() for path in whole_files(host.lora_dir)} == whole
    assert History(host.cache_dir / RUNS_DIR).runs()[0].evaluations == found


def test_a_run_whose_rate_falls_to_its_end_resumes_as_it_was(setting, host, monkeypatch, tmp_path: Path) -> None:
    scripted(monkeypatch, {1: 0.3, 2: 0.3, 3: 0.5, 4: 0.4, 5: 0.4, 6: 0.4, 7: 0.4})
    changes = {"stop_when_learned": True, "validate_every_n_steps": 1, "lr_scheduler": "constant"}
    list(run(host, recipe_of(setting, **changes), tmp_path / "whole"))
    broken = recipe_of(setting, **changes, output_name="broken")
    story = run(host, broken, tmp_path / "broken")
    while not (isinstance(event := next(story), Evaluated) and event.step == 6):
        pass
    story.throw(StopRequested(save=True))
    assert finished(list(story)).steps == 6
    rates = [event.learning_rate for event in run(host, broken, tmp_path / "broken") if isinstance(event, Step)]
    assert rates[-1] == 0.005
    whole, resumed = (load_file(host.lora_dir / f"{name}-step00000007.safetensors") for name in ("jeff", "broken"))
    assert all(torch.equal(resumed[key], value) for key, value in whole.items())


def test_a_run_that_has_not_learned_goes_on_to_more_steps(setting, host, monkeypatch) -> None:
    shares = {2: 0.1, 4: 0.2, 6: 0.3, 8: 0.4, 10: 0.45, 12: 0.44, 14: 0.43, 16: 0.43, 18: 0.43}
    scripted(monkeypatch, shares)
    history = History(host.cache_dir / RUNS_DIR)
    log = history.begin(recipe_of(setting, stop_when_learned=True, lr_scheduler="cosine"))
    for event in run(host, log.past.as_recipe(), log.folder):
        log.take(event)
    log.finish("done")
    assert isinstance(event, Finished) and event.evaluated.verdict == "not learned yet"
    assert event.evaluated.more_steps > 0 and f"{event.evaluated.more_steps} more steps" in event.evaluated.advice
    past = history.find(log.past.id)
    assert past.extendable and past.resumable and (log.folder / STATE_FILE).exists()
    assert "Not learned yet." in (log.folder / "jeff.report.html").read_text("utf-8")
    with pytest.raises(UserError, match="all its steps"):
        history.reopen(past.id)
    again = history.reopen(past.id, max_train_steps=20)
    rates = []
    for event in run(host, again.past.as_recipe(), again.folder):
        again.take(event)
        rates += [event.learning_rate] if isinstance(event, Step) else []
    again.finish("done")
    assert isinstance(event, Finished) and (event.steps, event.evaluated.best_step) == (18, 10)
    # Cosine over 20 steps, at step 8: (1 + cos(0.4 π)) / 2.
    assert rates[0] == pytest.approx(1e-2 * 0.6545, rel=1e-3) and len(rates) == 10
    assert not history.find(past.id).extendable and not (log.folder / STATE_FILE).exists()
