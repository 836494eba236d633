"""A run that a living program drives is neither resumed nor removed by another; one whose program died is free."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lib_trainer.cli.main import main
from lib_trainer.config.recipe import Recipe
from lib_trainer.errors import UserError
from lib_trainer.jobs.history import RUNS_DIR, STATE_FILE, History
from lib_trainer.jobs.lock import LOCK_FILE, RunLock, RunLocked, is_locked
from lib_trainer.jobs.queue import Jobs
from tests.ui.fakes import FakeHost

OTHER_PROGRAM = """
import sys
from pathlib import Path
from lib_trainer.config.recipe import Recipe
from lib_trainer.events import Started, StateSaved
from lib_trainer.jobs.history import History
recipe = Recipe().with_values({"output_name": "jeff", "train_data_dir": "/pictures"})
log = History(Path(sys.argv[1])).begin(recipe)
log.take(Started(0, 9, "m", "p"))
log.take(StateSaved(0))
print(log.past.id, flush=True)
sys.stdin.read()
log.finish("stopped")
"""
RECIPE = Recipe().with_values({"output_name": "jeff", "train_data_dir": "/pictures"})


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(FakeHost(tmp_path).cache_dir / RUNS_DIR)


@pytest.fixture
def other(history: History) -> Iterator[tuple[subprocess.Popen, str]]:
    """Another program that drives a run, and the run's id."""
    command = [sys.executable, "-c", OTHER_PROGRAM, str(history.folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process, process.stdout.readline().strip()
        process.kill()


def test_a_run_of_another_program_is_left_alone(history: History, other, tmp_path: Path) -> None:
    process, run_id = other
    (history.folder / run_id / STATE_FILE).write_bytes(b"state")
    jobs = Jobs(FakeHost(tmp_path), lambda *_: iter(()))
    acts: tuple[Callable[[], object], ...] = (
        lambda: jobs.resume_run(run_id), lambda: jobs.forget(run_id), lambda: jobs.start(RECIPE),
    )  # fmt: skip
    for act in acts:
        with pytest.raises(UserError, match="jeff is being trained by another program"):
            act()
    assert [(past.id, past.state) for past in jobs.past()] == [(run_id, "training")]
    assert (history.folder / run_id / STATE_FILE).exists()
    process.communicate("")
    assert [past.state for past in jobs.past()] == ["stopped"]
    jobs.forget(run_id)
    assert jobs.past() == []


def test_a_crash_sets_its_run_free(history: History, other, tmp_path: Path) -> None:
    process, run_id = other
    jobs = Jobs(FakeHost(tmp_path), lambda *_: iter(()))
    process.kill()
    process.wait()
    assert [(past.id, past.state) for past in jobs.past()] == [(run_id, "interrupted")]
    assert jobs.resume_run(run_id) == run_id


def test_the_command_line_says_why_it_does_not_go_on(tmp_path: Path, capsys) -> None:
    history = History(tmp_path / "cache" / "train_lora" / RUNS_DIR)
    log = history.begin(RECIPE)
    assert main(["resume", "--out", str(tmp_path)]) == 2
    assert "jeff is being trained by another program" in capsys.readouterr().err
    log.finish("stopped")
    assert not history.is_driven(log.past.id)


def test_old_runs_make_no_room_while_they_are_driven(history: History, monkeypatch) -> None:
    monkeypatch.setattr("lib_trainer.jobs.history.KEPT_RUNS", 0)
    log = history.begin(RECIPE)
    other = history.begin(RECIPE.with_values({"output_name": "anna"}))
    assert {past.id for past in history.runs()} == {log.past.id, other.past.id}
    log.finish("stopped")
    history.begin(RECIPE.with_values({"output_name": "bob"}))
    assert log.past.id not in {past.id for past in history.runs()}


def test_a_lock_is_held_by_one_and_released_once_or_twice(tmp_path: Path) -> None:
    lock = RunLock(tmp_path)
    assert is_locked(tmp_path)
    with pytest.raises(RunLocked):
        RunLock(tmp_path)
    lock.release()
    lock.release()
    assert not is_locked(tmp_path)
    RunLock(tmp_path).release()


def test_where_files_cannot_be_locked_nobody_is_refused(tmp_path: Path, caplog) -> None:
    (tmp_path / LOCK_FILE).mkdir()
    RunLock(tmp_path).release()
    assert "cannot be locked" in caplog.text and not is_locked(tmp_path)


def test_asking_leaves_no_files_in_folders_of_earlier_releases(tmp_path):
    (tmp_path / "run").mkdir()
    assert not is_locked(tmp_path / "run") and not is_locked(tmp_path / "gone")
    assert list((tmp_path / "run").iterdir()) == [] and not (tmp_path / "gone").exists()


def test_a_run_that_may_not_go_on_beside_its_twin_is_free_at_once(history: History) -> None:
    ended = history.begin(RECIPE)
    ended.finish("stopped")
    twin = history.begin(RECIPE)
    with pytest.raises(UserError, match="jeff is being trained") as caught:
        history.reopen(ended.past.id)
    # Whoever still holds the error, as a log does, must not hold the lock.
    assert caught.value and not history.is_driven(ended.past.id) and history.is_driven(twin.past.id)
    twin.finish("stopped")
