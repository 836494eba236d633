"""One run at a time: its states, its commands, and how it ends."""

from __future__ import annotations

import contextlib
import gc
import logging
import random
import threading
import time
import weakref
from functools import partial

import pytest

from lib_trainer.config.recipe import Recipe
from lib_trainer.errors import ConfigError, UserError
from lib_trainer.events import Finished, Started, StateSaved, Step, StopRequested
from lib_trainer.jobs.queue import Jobs
from tests.jobs.runs import RECIPE, LedRun, events_run, named, step
from tests.ui.fakes import FakeHost, SlowRun
from tests.waiting import PATIENCE_S, until


def test_a_second_start_is_refused_until_the_first_is_over(host):
    run = LedRun(steps=1)
    jobs = Jobs(host, run)
    jobs.start(RECIPE)
    with pytest.raises(UserError, match="jeff is still being trained"):
        jobs.start(RECIPE)
    run.go.release()
    jobs.wait(PATIENCE_S)
    jobs.start(RECIPE)
    run.go.release()
    assert jobs.wait(PATIENCE_S).state == "done"


def test_a_wrong_recipe_never_reaches_the_host(host):
    jobs = Jobs(host, LedRun())
    with pytest.raises(ConfigError):
        jobs.start(Recipe())
    assert jobs.status().state == "idle"


def test_only_one_of_many_simultaneous_starts_wins(host):
    jobs, refused, gate = Jobs(host, SlowRun(steps=3, seconds=0.01)), [], threading.Barrier(8)

    def start() -> None:
        gate.wait()
        try:
            jobs.start(RECIPE)
        except UserError as error:
            refused.append(error)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert len(refused) == 7
    assert jobs.wait(PATIENCE_S).state == "done"


def test_commands_from_many_threads_never_leave_a_run_hanging(host):
    for seed in range(10):
        jobs = Jobs(host, SlowRun(steps=200, seconds=0.001))
        jobs.start(RECIPE)
        commands = [jobs.pause, jobs.resume, jobs.status, jobs.pause, jobs.resume, partial(jobs.stop, save=True)]
        order = commands[seed % 5 :] + commands[: seed % 5]
        threads = [threading.Thread(target=command) for command in order]
        for thread in threads:
            thread.start()
        assert jobs.wait(PATIENCE_S).state == "stopped"


def test_runs_wait_for_each_other_in_order(host):
    order, run = [], LedRun(steps=1)

    def noting(host, recipe, folder):
        order.append(recipe.output.output_name)
        yield from run(host, recipe, folder)

    jobs = Jobs(host, noting)
    for name in "abc":
        jobs.start(named(name))
    assert [waiting.name for waiting in jobs.status().queue] == ["b", "c"]
    with pytest.raises(UserError, match="b is queued already"):
        jobs.start(named("b"))
    for _ in range(3):
        run.go.release()
    jobs.wait(PATIENCE_S)
    assert order == ["a", "b", "c"]
    assert [past.state for past in jobs.past()] == ["done"] * 3


def test_a_run_that_waits_can_be_taken_out(host):
    run = LedRun(steps=1)
    jobs = Jobs(host, run)
    jobs.start(named("a"))
    second = jobs.start(named("b"))
    jobs.stop(save=True, run_id=second)
    assert jobs.status().queue == ()
    run.go.release()
    assert jobs.wait(PATIENCE_S).name == "a"
    assert {past.name: past.state for past in jobs.past()} == {"a": "done", "b": "stopped"}


def test_pages_hear_of_the_queue_though_the_current_run_stands_still(host):
    run = LedRun(steps=1)
    jobs = Jobs(host, run)
    jobs.start(named("a"))
    until(lambda: jobs.status().state == "preparing")
    alone = jobs.version()
    second = jobs.start(named("b"))
    assert jobs.version() != alone
    jobs.stop(save=False, run_id=second)
    assert jobs.version() == alone
    run.go.release()
    jobs.wait(PATIENCE_S)


def test_a_run_that_was_cut_off_is_called_interrupted_and_goes_on(tmp_path):
    """Another program finds what the first has left: its curve, its samples, and the step that was kept."""
    run = LedRun()
    first = Jobs(FakeHost(tmp_path), events_run(Started(0, 9, "m", "p"), step(1), step(2), StateSaved(2), step(3)))
    run_id = first.start(RECIPE)
    first.wait(PATIENCE_S)
    log = first.history.reopen(run_id)
    log.write_changes(state="training", ended=0.0)
    log.lock.release()
    second = Jobs(FakeHost(tmp_path), events_run(Started(2, 9, "m", "p"), step(3)))
    assert [(past.id, past.state, past.kept_step) for past in second.past()] == [(run_id, "interrupted", 2)]
    assert second.resume_run(run_id) == run_id
    status = second.wait(PATIENCE_S)
    assert [number for number, _ in status.losses] == [1, 2, 3]
    assert "Resuming from step 2 of 9." in status.notices
    assert run.number == 0


def test_a_run_that_is_done_or_under_way_cannot_be_resumed(host):
    run = LedRun(steps=1)
    jobs = Jobs(host, run)
    run_id = jobs.start(RECIPE)
    with pytest.raises(UserError, match="still being trained"):
        jobs.resume_run(run_id)
    with pytest.raises(UserError, match="still going"):
        jobs.forget(run_id)
    run.go.release()
    jobs.wait(PATIENCE_S)
    with pytest.raises(UserError, match="is done"):
        jobs.resume_run(run_id)
    jobs.forget(run_id)
    assert jobs.past() == []


@pytest.mark.parametrize("seed", range(3))
def test_twenty_runs_in_any_order_with_failures_leave_nothing_behind(tmp_path, seed, monkeypatch):
    """Queued, cancelled, stopped, paused and failing: each ends once and is told, and no memory is held."""
    # pytest keeps every record, and with it the traceback and all that it leads to.
    monkeypatch.setattr(logging.getLogger("lib_trainer.jobs.job"), "disabled", True)
    chance, host = random.Random(seed), FakeHost(tmp_path)
    held: list[weakref.ref] = []
    # (thread, how many runs were under way) as each run begins.
    begun: list[tuple[threading.Thread, int]] = []

    class Ballast:
        """What a run holds while it goes on."""

    def run(host, recipe, folder):
        ballast = Ballast()
        begun.append((threading.current_thread(), 1 + sum(one() is not None for one in held)))
        held.append(weakref.ref(ballast))
        fate, steps = recipe.training.seed, 4
        try:
            for number in range(1, steps + 1):
                if fate == number:
                    raise UserError("no room", "") if number % 2 else RuntimeError("a fault")
                time.sleep(0.002)
                command = yield Step(number, steps, 1, 0.5, 1e-4, 0.002)
                while command:
                    command = yield StateSaved(number)
        except StopRequested as stop:
            if not stop.save:
                raise
        yield Finished(host.lora_dir / f"{recipe.output.output_name}.safetensors", "<lora:x:1>", 4)

    jobs = Jobs(host, run)
    ids = [jobs.start(named(f"run{index}", seed=chance.randrange(9))) for index in range(20)]
    # On a busy machine all others may be through before the first stop below.
    jobs.stop(False, run_id=ids[-1])
    acts = [jobs.pause, jobs.resume, partial(jobs.stop, True), partial(jobs.stop, False)]
    for _ in range(60):
        chosen = chance.choice(ids)
        with contextlib.suppress(UserError):
            act = chance.choice(acts)
            act(run_id=chosen)
        status = jobs.status()
        assert len({status.id, *(waiting.id for waiting in status.queue)}) == 1 + len(status.queue)
        time.sleep(0.001)
    for run_id in ids:
        with contextlib.suppress(UserError):
            jobs.resume(run_id)
    assert not jobs.wait(PATIENCE_S).live
    past = {past.id: past.state for past in jobs.past()}
    assert set(past) == set(ids) and set(past.values()) <= {"done", "stopped", "failed"}
    assert {"done", "stopped", "failed"} == set(past.values())
    gc.collect()
    assert not [one for one in held if one() is not None]
    assert not host.busy.locked()
    assert max(count for _, count in begun) == 1, "one run at a time"
    for thread, _ in begun:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
