"""One run at a time: its states, its commands, and how it ends."""

from __future__ import annotations

import contextlib
import gc
import logging
import random
import threading
import time
import weakref
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest

from lib_trainer.config.recipe import Recipe
from lib_trainer.errors import ConfigError, UserError
from lib_trainer.events import Begun, Command, Event, Finished, Kept, Notice, Progress, Saved, Step, StopRequested
from lib_trainer.jobs.queue import Jobs
from lib_trainer.jobs.status import KEPT_LOSSES
from tests.ui.fakes import FakeHost, SlowRun
from tests.waiting import PATIENCE_S, until

RECIPE = Recipe().with_values({"output_name": "jeff", "train_data_dir": "/pictures"})


class LedRun:
    """A run that takes a step only when the test says `go`, and notes what was thrown into it."""

    def __init__(self, steps: int = 50) -> None:
        self.steps = steps
        self.go = threading.Semaphore(0)
        self.number = 0
        self.stop: StopRequested | None = None
        self.closed = False
        self.commands: list[tuple[int, Command]] = []

    def __call__(self, host: FakeHost, recipe: Recipe, folder: Path) -> Iterator[Event]:
        try:
            for number in range(1, self.steps + 1):
                self.number = number
                self.go.acquire()
                command = yield Step(self.number, self.steps, 1, 0.1, 1e-4, 0.5)
                while command:
                    self.commands.append((number, command))
                    command = yield Kept(number)
        except StopRequested as stop:
            self.stop = stop
            if not stop.save:
                raise
        else:
            self.number = self.steps
        finally:
            self.closed = True
        path = host.lora_dir / "jeff.safetensors"
        yield Saved(path, self.number)
        yield Finished(path, "<lora:jeff:0.8>", self.number, stopped_early=self.stop is not None)


@pytest.fixture
def host(tmp_path):
    return FakeHost(tmp_path)


def events_run(*events: Event | Exception):
    def run(host, recipe, folder):
        for event in events:
            if isinstance(event, Exception):
                raise event
            yield event

    return run


def step(number: int, total: int = 10, seconds: float = 0.5) -> Step:
    return Step(number, total, 1, 1.0 / number, 1e-4, seconds, 2**30)


def test_a_run_goes_from_queued_to_done(host):
    run = LedRun(steps=2)
    jobs = Jobs(host, run)
    assert jobs.status().state == "idle"
    with host.busy:
        jobs.start(RECIPE)
        assert jobs.status().state == "queued"
        assert "Waiting" in jobs.status().phase
    until(lambda: jobs.status().state == "preparing")
    run.go.release()
    until(lambda: jobs.status().state == "training")
    assert (jobs.status().step, jobs.status().steps) == (1, 2)
    run.go.release()
    status = jobs.wait(PATIENCE_S)
    assert (status.state, status.tag, status.path) == ("done", "<lora:jeff:0.8>", host.lora_dir / "jeff.safetensors")
    assert not status.live


def test_numbers_of_a_run_come_from_its_events(host):
    events = [
        Notice("one is skipped"),
        Progress("caching", 3, 8, "Encoding the pictures"),
        *(step(number, seconds=30.0 if number == 3 else 0.5) for number in range(1, 6)),
    ]
    jobs = Jobs(host, events_run(*events))
    jobs.start(RECIPE)
    status = jobs.wait(PATIENCE_S)
    assert status.notices == ("one is skipped",)
    assert status.losses == tuple((number, 1.0 / number) for number in range(1, 6))
    # The long third step was a pause: it does not count for the pace.
    assert status.seconds_per_step == 0.5
    assert status.peak_bytes == 2**30
    assert (3, 8, "Encoding the pictures") in host.progress
    assert (5, 10, "Training") in host.progress


def test_time_left_follows_the_pace(host):
    run = LedRun(steps=50)
    jobs = Jobs(host, run)
    jobs.start(RECIPE)
    run.go.release()
    until(lambda: jobs.status().step == 1)
    assert jobs.status().eta_seconds == pytest.approx(49 * 0.5)
    jobs.stop(save=False)
    run.go.release()
    assert jobs.wait(PATIENCE_S).eta_seconds == 0


@pytest.mark.parametrize("save", [True, False])
def test_stop_is_heard_within_one_event(host, save):
    run = LedRun()
    jobs = Jobs(host, run)
    jobs.start(RECIPE)
    run.go.release()
    until(lambda: run.number == 2)
    jobs.stop(save=save)
    assert jobs.status().stopping
    run.go.release()
    status = jobs.wait(PATIENCE_S)
    assert (run.number, run.stop.save, run.closed) == (2, save, True)
    assert status.state == "stopped"
    assert status.tag == ("<lora:jeff:0.8>" if save else "")
    assert not status.stopping


def test_stop_while_waiting_for_the_host_ends_at_once_and_runs_nothing(host):
    run = LedRun()
    jobs = Jobs(host, run)
    with host.busy:
        jobs.start(RECIPE)
        jobs.stop(save=True)
        assert jobs.status().state == "stopped"
        jobs.start(RECIPE)
        assert jobs.status().state == "queued"
    until(lambda: jobs.status().state == "preparing")
    jobs.stop(save=False)
    run.go.release()
    assert jobs.wait(PATIENCE_S).state == "stopped"
    assert run.number <= 1


def test_a_paused_run_takes_no_step_and_still_hears_stop(host):
    run = LedRun()
    jobs = Jobs(host, run)
    jobs.start(RECIPE)
    until(lambda: run.number == 1)
    jobs.pause()
    assert jobs.status().state == "paused"
    for _ in range(5):
        run.go.release()
    until(lambda: jobs.status().step == 1)
    time.sleep(0.05)
    assert (run.number, jobs.status().state) == (1, "paused")
    jobs.resume()
    until(lambda: run.number == 6)
    assert jobs.status().state == "training"
    jobs.pause()
    jobs.stop(save=True)
    run.go.release()
    assert jobs.wait(PATIENCE_S).state == "stopped"
    assert run.stop.save


def test_the_hosts_interrupt_saves_what_was_learned(host):
    run = LedRun()
    jobs = Jobs(host, run)
    jobs.start(RECIPE)
    until(lambda: run.number == 1)
    jobs.pause()
    run.go.release()
    until(lambda: jobs.status().step == 1)
    host.interrupt = True
    status = jobs.wait(PATIENCE_S)
    assert (status.state, status.tag) == ("stopped", "<lora:jeff:0.8>")
    assert any("Interrupted" in notice for notice in status.notices)


def test_a_persons_mistake_is_told_with_its_hint(host):
    jobs = Jobs(host, events_run(step(1), UserError("The disk is full.", "Make room.")))
    jobs.start(RECIPE)
    status = jobs.wait(PATIENCE_S)
    assert (status.state, status.error, status.hint) == ("failed", "The disk is full.", "Make room.")


def test_problems_of_fields_are_kept_by_field(host):
    jobs = Jobs(host, events_run(ConfigError({"output_name": "is taken"})))
    jobs.start(RECIPE)
    assert jobs.wait(PATIENCE_S).problems == {"output_name": "is taken"}


def test_a_bug_leaves_its_traceback_in_the_log_and_one_line_in_the_status(host, caplog):
    jobs = Jobs(host, events_run(step(1), ZeroDivisionError("a\nb")))
    jobs.start(RECIPE)
    assert jobs.wait(PATIENCE_S).error == "ZeroDivisionError: a"
    assert "Traceback" in caplog.text


def test_a_failure_after_the_last_event_is_not_hidden(host):
    finished = Finished(host.lora_dir / "jeff.safetensors", "<lora:jeff:0.8>", 5)
    jobs = Jobs(host, events_run(step(5), finished, RuntimeError("the model did not come back")))
    jobs.start(RECIPE)
    status = jobs.wait(PATIENCE_S)
    assert (status.state, status.error) == ("failed", "RuntimeError: the model did not come back")


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


def test_losses_are_thinned_evenly(host):
    total = KEPT_LOSSES * 3
    jobs = Jobs(host, events_run(*(step(number, total) for number in range(1, total + 1))))
    jobs.start(RECIPE)
    steps = [number for number, _ in jobs.wait(PATIENCE_S).losses]
    assert KEPT_LOSSES / 3 < len(steps) <= KEPT_LOSSES
    assert len({after - before for before, after in pairwise(steps)}) == 1
    assert steps[-1] > total - 10


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


def test_commands_are_taken_after_the_step_and_also_while_paused(host):
    run = LedRun()
    jobs = Jobs(host, run)
    jobs.start(RECIPE)
    jobs.ask(Command.SAVE)
    run.go.release()
    until(lambda: run.commands == [(1, Command.SAVE)] and run.number == 2)
    jobs.pause()
    run.go.release()
    until(lambda: run.commands[1:] == [(2, Command.KEEP)])
    assert jobs.status().kept_step == 2, "who pauses may shut the machine down"
    jobs.ask(Command.SAMPLE)
    until(lambda: run.commands[2:] == [(2, Command.SAMPLE)])
    assert (jobs.status().state, run.number) == ("paused", 2)
    jobs.stop(save=False)
    jobs.wait(PATIENCE_S)


def test_a_run_that_was_cut_off_is_called_interrupted_and_goes_on(tmp_path):
    """Another program finds what the first has left: its curve, its samples, and the step that was kept."""
    run = LedRun()
    first = Jobs(FakeHost(tmp_path), events_run(Begun(0, 9, "m", "p"), step(1), step(2), Kept(2), step(3)))
    run_id = first.start(RECIPE)
    first.wait(PATIENCE_S)
    log = first.history.reopen(run_id)
    log.write_changes(state="training", ended=0.0)
    log.lock.release()
    second = Jobs(FakeHost(tmp_path), events_run(Begun(2, 9, "m", "p"), step(3)))
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
                    command = yield Kept(number)
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


def named(name: str, **values: object) -> Recipe:
    return RECIPE.with_values({"output_name": name, **values})


def test_a_run_that_was_stopped_leaves_nothing_of_itself_in_memory(tmp_path: Path) -> None:
    class Ballast:
        """The tensors of a run."""

    held: list[weakref.ref] = []

    def run(_host, _recipe, _folder):
        ballast = Ballast()
        held.append(weakref.ref(ballast))
        for number in range(1, 10_000):
            time.sleep(0.001)
            yield Step(number, 10_000, 1, 0.5, 1e-4, 0.001)

    jobs = Jobs(FakeHost(tmp_path), run)
    jobs.start(named("stopped"))
    until(lambda: jobs.status().step > 1)
    jobs.stop(save=False)
    assert jobs.wait(PATIENCE_S).state == "stopped"
    gc.collect()
    assert held[0]() is None
