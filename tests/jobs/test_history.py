"""What is kept of runs, and how little it takes to read it again."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from lib_trainer.config.recipe import Recipe
from lib_trainer.errors import UserError
from lib_trainer.events import Finished, Sampled, Saved, Started, StateSaved, Step
from lib_trainer.jobs import history
from lib_trainer.jobs.history import RUN_FILE, STATE_FILE, History
from lib_trainer.jobs.loss_log import LOSS_FILE, LossFile
from lib_trainer.jobs.past_run import read_run

RECIPE = Recipe().with_values({"output_name": "jeff", "train_data_dir": "/pictures", "network_dim": 12})


@pytest.fixture
def past_runs(tmp_path: Path) -> History:
    return History(tmp_path / "runs")


def step(number: int) -> Step:
    return Step(number, 10, 1, 1.0 / number, 1e-4, 0.5)


def begin(past_runs: History, steps: int = 0):
    log = past_runs.begin(RECIPE)
    log.take(Started(0, 10, "model.safetensors", "abc"))
    for number in range(1, steps + 1):
        log.take(step(number))
    # As when its program ends.
    log.lock.release()
    return log


def test_a_run_is_written_down_as_it_goes_on(past_runs):
    log = begin(past_runs, 3)
    log.take(Saved(Path("/lora/jeff-step3.safetensors"), 3))
    log.take(Sampled(Path("/runs/x/samples/step3-1.png"), 3, "a cat"))
    log.take(StateSaved(3))
    for number in (4, 5):
        log.take(step(number))
    past = past_runs.find(log.past.id)
    assert (past.name, past.state, past.kept_step, past.checkpoint, past.pictures) == (
        "jeff", "training", 3, "model.safetensors", "abc",
    )  # fmt: skip
    assert past.files == ("jeff-step3.safetensors",) and past.samples == ((3, "step3-1.png", "a cat"),)
    assert past.as_recipe() == RECIPE
    assert past_runs.losses(past.id) == [(number, 1.0 / number, 1e-4) for number in range(1, 6)]
    log.take(Finished(Path("/lora/jeff.safetensors"), "<lora:jeff:1>", 10))
    log.finish("done")
    assert (past_runs.runs()[0].state, past_runs.runs()[0].step, past_runs.runs()[0].resumable) == ("done", 10, False)


def test_a_run_that_goes_on_drops_the_steps_that_are_taken_again(past_runs):
    log = begin(past_runs, 5)
    path = log.folder / LOSS_FILE
    path.write_text(path.read_text() + "6,1,0.1")
    again = past_runs.reopen(log.past.id)
    again.take(Started(3, 10, "model.safetensors", "abc"))
    again.take(step(4))
    assert [number for number, _, _ in past_runs.losses(log.past.id)] == [1, 2, 3, 4]


def test_what_a_resume_needs_goes_when_the_run_is_done(past_runs):
    for state, stays in (("done", False), ("stopped", True), ("failed", True)):
        log = begin(past_runs, 1)
        (log.folder / STATE_FILE).write_bytes(b"state")
        log.finish(state, "why")
        assert (log.folder / STATE_FILE).exists() is stays


def test_old_runs_and_the_states_of_old_runs_make_room(past_runs, monkeypatch):
    monkeypatch.setattr(history, "KEPT_RUNS", 4)
    monkeypatch.setattr(history, "KEPT_STATES", 2)
    logs = [begin(past_runs) for _ in range(6)]
    for log in logs:
        (log.folder / STATE_FILE).parent.mkdir(exist_ok=True)
        (log.folder / STATE_FILE).write_bytes(b"state")
    newest = past_runs.begin(RECIPE)
    kept = {past.id for past in past_runs.runs()}
    assert kept == {newest.past.id, *(log.past.id for log in logs[2:])}
    assert [(log.folder / STATE_FILE).exists() for log in logs[2:]] == [False, False, True, True]


DAMAGED = {
    "empty": "", "a list": "[]", "cut": "{", "other types": '{"started": "x", "files": 5}', "no text": "\x00",
    "nested": "[" * 100_000,
}  # fmt: skip


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_record_hides_no_other(past_runs, content):
    good, bad = begin(past_runs), begin(past_runs)
    (bad.folder / RUN_FILE).write_text(content)
    assert [past.id for past in past_runs.runs()] == [good.past.id]


def test_settings_of_another_release_are_left_out(past_runs):
    log = begin(past_runs)
    data = json.loads((log.folder / RUN_FILE).read_text())
    data["recipe"]["of_tomorrow"], data["new_fact"] = 1, 2
    (log.folder / RUN_FILE).write_text(json.dumps(data))
    assert past_runs.find(log.past.id).as_recipe() == RECIPE


@pytest.mark.parametrize("run_id", ["", "..", "../runs", "20260101-000000-zzzzzz", "20260101-000000-abcdef"])
def test_an_id_that_is_none_is_said(past_runs, run_id):
    begin(past_runs)
    for ask in (past_runs.find, past_runs.losses, past_runs.forget, past_runs.reopen):
        with pytest.raises(UserError, match="no longer exists"):
            ask(run_id)


def test_a_full_disk_spoils_no_run(past_runs, monkeypatch, caplog):
    log = begin(past_runs, 1)

    def full(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    log.take(StateSaved(1))
    log.finish("done")
    assert "No space left" in caplog.text


def test_records_that_have_not_changed_are_not_read_again(past_runs, monkeypatch):
    logs = [begin(past_runs) for _ in range(5)]
    read = []
    monkeypatch.setattr(history, "read_run", lambda path: read.append(path) or read_run(path))
    assert len(past_runs.runs()) == 5
    read.clear()
    past_runs.runs()
    past_runs.find(logs[0].past.id)
    assert read == []
    logs[2].finish("stopped")
    assert [past.state for past in past_runs.runs() if past.id == logs[2].past.id] == ["stopped"]
    assert len(read) == 1
    past_runs.forget(logs[1].past.id)
    assert len(past_runs.runs()) == 4 and len(past_runs._read) == 4


def test_a_path_that_leads_to_a_run_is_not_its_id(past_runs):
    past = begin(past_runs).past
    for name in (f"../runs/{past.id}", f"./{past.id}", f"{past.id}/", f"x/../{past.id}"):
        with pytest.raises(UserError, match="no longer exists"):
            past_runs.find(name)


def test_a_run_that_may_not_go_on_is_set_free_again(past_runs):
    old = begin(past_runs, 1)
    old.finish("stopped")
    twin = past_runs.begin(RECIPE)
    with pytest.raises(UserError, match="another program"):
        past_runs.reopen(old.past.id)
    twin.finish("stopped")
    past_runs.reopen(old.past.id).lock.release()


def test_what_another_program_did_before_the_lock_was_ours_counts(past_runs, monkeypatch):
    log = begin(past_runs, 2)
    log.finish("stopped")
    take_lock = History._lock

    def later(self, past):
        log.write_changes(step=7)
        return take_lock(self, past)

    monkeypatch.setattr(History, "_lock", later)
    again = past_runs.reopen(log.past.id)
    assert again.past.step == 7
    again.lock.release()


def test_the_state_of_a_run_that_is_driven_stays(past_runs, monkeypatch):
    monkeypatch.setattr(history, "KEPT_STATES", 0)
    logs = [past_runs.begin(RECIPE.with_values({"output_name": name})) for name in ("driven", "over")]
    for log in logs:
        (log.folder / STATE_FILE).touch()
    logs[1].finish("stopped")
    past_runs.begin(RECIPE.with_values({"output_name": "next"})).lock.release()
    assert [(log.folder / STATE_FILE).exists() for log in logs] == [True, False]
    logs[0].lock.release()


def test_the_losses_of_a_run_that_is_over_are_held_open_no_longer(tmp_path):
    """Windows removes no file that is open."""
    losses = LossFile(tmp_path)
    losses.continue_after(0)
    held = losses._lines
    losses.close()
    assert held.closed
